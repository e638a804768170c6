package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"onceq/cmd/onceq/internal/exit"
)

// layout is what a local cluster keeps of itself in cluster.json: chosen once,
// so that addresses in scripts stay right.
type layout struct {
	Version int     `json:"version"`
	Nodes   []Ports `json:"nodes"`
}

const layoutVersion = 1

func layoutPath(dir string) string { return filepath.Join(dir, "cluster.json") }

// openLayout reads the layout of dir, or chooses one and writes it.
func openLayout(dir string, nodes, base int, anyPorts bool) (layout, error) {
	var l layout
	b, err := os.ReadFile(layoutPath(dir))
	switch {
	case errors.Is(err, os.ErrNotExist):
		l.Version = layoutVersion
		if nodes == 0 {
			nodes = 3
		}
		if l.Nodes, err = choosePorts(base, nodes, anyPorts); err != nil {
			return l, err
		}
		return l, l.write(dir)
	case err != nil:
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w", layoutPath(dir), err)
	}
	if l.Version != layoutVersion || len(l.Nodes) == 0 {
		return l, fmt.Errorf("%s: version %d with %d nodes is not known to this onceq", layoutPath(dir), l.Version, len(l.Nodes))
	}
	if nodes != 0 && nodes != len(l.Nodes) {
		return l, exit.Errorf(exit.Conflict, "the cluster in %s has %d nodes, not %d: name another directory with --data", dir, len(l.Nodes), nodes)
	}
	if base != 0 && base != l.Nodes[0].Client {
		l.Nodes = from(base, len(l.Nodes))
		if err := takenError(l.Nodes); err != nil {
			return l, err
		}
		return l, l.write(dir)
	}
	return l, takenError(l.Nodes)
}

func (l layout) write(dir string) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := layoutPath(dir) + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, layoutPath(dir))
}

// lockDir takes dir for this process until the file is closed.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &exit.Error{Code: exit.Conflict, Err: fmt.Errorf("a local cluster is running with %s already", dir),
				Hint: "look at it with  onceq dev status , or name another directory with --data"}
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}
