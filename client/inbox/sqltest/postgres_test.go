package sqltest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// postgres is a server with its data and its socket in a temporary directory. It
// listens on no port and knows nothing of other servers on the machine.
type postgres struct {
	dir string
	cmd *exec.Cmd
	log *bytes.Buffer // read after the end of cmd only
}

func startPostgres() (_ *postgres, err error) {
	initdb, err := program("initdb")
	if err != nil {
		return nil, err
	}
	serve, err := program("postgres")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, log: &bytes.Buffer{}}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 {
		// It refuses to run as root.
		if attr.Credential, err = credential("postgres"); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	init := exec.Command(initdb, "--pgdata", data, "--username", "test", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
	init.Dir, init.SysProcAttr = dir, attr
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// The tests kill connections and clients, never the power.
	p.cmd = exec.Command(serve, "-D", data, "-k", dir, "-h", "", "-F", "-c", "max_connections=100", "-c", "shared_buffers=16MB")
	p.cmd.Dir, p.cmd.SysProcAttr, p.cmd.Stdout, p.cmd.Stderr = dir, attr, p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.waitReady(); err != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		return nil, fmt.Errorf("%w\n%s", err, p.log)
	}
	return p, nil
}

// program finds what Debian does not put into the path.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	return found[len(found)-1], nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func (p *postgres) waitReady() error {
	db, err := sql.Open("pgx", p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
}

func (p *postgres) dsn(database string) string {
	return fmt.Sprintf("host=%s user=test dbname=%s", p.dir, database)
}

// stop ends the server and removes its data.
func (p *postgres) stop() error {
	err := p.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	return errors.Join(err, p.cmd.Wait(), os.RemoveAll(p.dir))
}
