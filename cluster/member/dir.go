package member

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrDirLocked is returned when another process uses the data directory.
	ErrDirLocked = errors.New("data directory is in use")
	// ErrOtherNode is returned when the data directory belongs to a node of
	// another name.
	ErrOtherNode = errors.New("data directory belongs to another node")
	// ErrOtherCluster is returned when the data directory belongs to a cluster
	// with another key.
	ErrOtherCluster = errors.New("data directory belongs to another cluster")
	// ErrNoIdentity is returned when a data directory has files but no identity
	// file: it may hold what a node promised, so nobody may start empty in it.
	ErrNoIdentity = errors.New("data directory has files but no identity file")
	// ErrNotDataDir is returned when a directory has files and none of a node: most
	// likely it was not meant.
	ErrNotDataDir = errors.New("not a data directory of onceq")
	// ErrDirClosed is returned by a Dir after Close.
	ErrDirClosed = errors.New("data directory is closed")
)

const (
	identityFile     = "identity"
	identityTempFile = "identity.tmp"
	ballastFile      = "ballast" // of package cluster
	lockFile         = "lock"
	groupsDir        = "groups" // package cluster's: what a node promised is below it
)

// DirConfig says which data directory to open, and for whom.
type DirConfig struct {
	// Path is created if absent.
	Path string
	// Name is the node's name; "" takes the one in the identity file.
	Name string
	// Key is the operator's cluster key (SecretBytes long), or nil.
	Key    []byte
	Logger *slog.Logger
	// Locked is called when nobody else can use the directory, before anything is
	// written; known says that it is a node's. May be nil.
	Locked func(known bool) error
}

// Dir is a node's data directory: the lock on it and its identity. Every
// change of the identity is on disk before it can be seen.
type Dir struct {
	path   string
	key    []byte
	log    *slog.Logger
	lock   *os.File
	change chan struct{}      // holds one token: whoever has it may write the file
	write  func([]byte) error // replaces the file durably; tests let it fail

	mu       sync.Mutex // guards what follows, never held over I/O
	identity Identity
	err      error // after it nothing is written any more
}

// OpenDir locks the directory and reads its identity, or makes a new one in an
// empty directory. It must come before anything else is created in there.
// Hidden files and files that end in .log or .pid do not count as state.
func OpenDir(cfg DirConfig) (*Dir, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Key != nil && len(cfg.Key) != SecretBytes {
		return nil, fmt.Errorf("cluster key has %d bytes, want %d", len(cfg.Key), SecretBytes)
	}
	if cfg.Name != "" {
		if err := CheckName(cfg.Name); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(cfg.Path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	// Before the lock: a directory that is refused may be somebody else's, and keeps no
	// file of ours.
	if _, err := os.Stat(filepath.Join(cfg.Path, identityFile)); errors.Is(err, fs.ErrNotExist) {
		if err := mayBegin(cfg.Path); err != nil {
			return nil, err
		}
	}
	lock, err := lockDir(cfg.Path)
	if err != nil {
		return nil, err
	}
	if cfg.Locked != nil {
		_, err := os.Stat(filepath.Join(cfg.Path, identityFile))
		if err := cfg.Locked(err == nil); err != nil {
			lock.Close()
			return nil, err
		}
	}
	d := &Dir{path: cfg.Path, key: slices.Clone(cfg.Key), log: cfg.Logger, lock: lock, change: make(chan struct{}, 1)}
	d.write = func(b []byte) error { return writeDurably(d.path, identityFile, identityTempFile, b) }
	d.change <- struct{}{}
	if err := d.load(cfg.Name); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// PeekDir locks the directory of a node that is stopped and reads its identity,
// and changes nothing: for tools.
func PeekDir(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, identityFile)); err != nil {
		if lost := mayBegin(path); errors.Is(err, fs.ErrNotExist) && errors.Is(lost, ErrNoIdentity) {
			return nil, lost
		}
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, log: slog.New(slog.DiscardHandler), lock: lock, change: make(chan struct{}, 1)}
	d.write = func(b []byte) error { return writeDurably(d.path, identityFile, identityTempFile, b) }
	d.change <- struct{}{}
	b, err := readBounded(filepath.Join(path, identityFile), identityBytesMax)
	if err == nil {
		d.identity, err = decodeIdentity(b)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// lockDir takes the lock that the kernel releases when the process ends,
// however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: %s is locked by process %s: stop that process or give this node a directory of its own",
			ErrDirLocked, dir, strings.TrimSpace(string(holder)))
	}
	// The number is for people who meet the error above; the lock is what counts.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

func (d *Dir) load(name string) error {
	path := filepath.Join(d.path, identityFile)
	b, err := readBounded(path, identityBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return d.create(name)
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return fmt.Errorf("%s: %w (restore the file, or wipe the whole directory and let the node join again as a new member)", path, err)
	}
	if name != "" && name != id.Name {
		return fmt.Errorf("%w: %s was made by node %q, this is node %q: use another directory, or start it as %q",
			ErrOtherNode, d.path, id.Name, name, id.Name)
	}
	if d.key != nil && id.Stage != StageEmpty && subtle.ConstantTimeCompare(d.key, id.Cluster.Secret[:]) != 1 {
		return fmt.Errorf("%w: the cluster key is not that of cluster %s, to which %s belongs: give the right key file, or use another directory",
			ErrOtherCluster, id.Cluster.ID, d.path)
	}
	d.identity = id
	return d.update(func(id *Identity) error {
		id.Start = nextStart(id.Start)
		return nil
	})
}

func (d *Dir) create(name string) error {
	if name == "" {
		return fmt.Errorf("%w: %s is new and no name was given", ErrName, d.path)
	}
	return d.update(func(id *Identity) error {
		*id = Identity{Name: name, ServerID: newServerID(name), Start: nextStart(0)}
		return nil
	})
}

// mayBegin refuses a directory without an identity file that holds anything. That of a
// node has lost it; of any other it is not known what it holds, so nothing is said
// that could make somebody remove it.
func mayBegin(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	other, groups, ballast := "", false, false
	for _, e := range entries {
		switch n := e.Name(); {
		case n == groupsDir:
			groups = true
		case n == ballastFile:
			ballast = true
		case n == lockFile, n == identityTempFile, n == "lost+found", strings.HasPrefix(n, "."),
			strings.HasSuffix(n, ".log"), strings.HasSuffix(n, ".pid"):
		case other == "":
			other = n
		}
	}
	if ballast && !groups && other == "" {
		other = ballastFile
	}
	switch {
	case groups && other == "":
		return fmt.Errorf("%w: %s has %q: restore the identity file, or wipe the directory and let the node join as a new member",
			ErrNoIdentity, path, groupsDir)
	case groups:
		return fmt.Errorf("%w: %s has no identity file, but %q and %q: choose an empty or a new directory, or restore the identity file if it is a node's",
			ErrNotDataDir, path, groupsDir, other)
	case other != "":
		return fmt.Errorf("%w: %s has %q and no file of a node: choose an empty or a new directory", ErrNotDataDir, path, other)
	}
	return nil
}

// nextStart is above every earlier start, and for a wiped directory most likely
// above those of its former life too. The wall clock is only a hint here: it
// decides which of two addresses is tried first.
func nextStart(last uint64) uint64 {
	return max(last+1, uint64(time.Now().UnixMilli()))
}

// Identity returns a copy.
func (d *Dir) Identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity.clone()
}

// operatorKey is the operator's key: the one given now, or the one that the
// cluster was formed with. nil if there never was one.
func (d *Dir) operatorKey() []byte {
	if d.key != nil {
		return d.key
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.identity.Cluster.Keyed {
		return slices.Clone(d.identity.Cluster.Secret[:])
	}
	return nil
}

// MarkBootstrapped records that raft has been bootstrapped here, which the
// committed minter alone does. A second call does nothing.
func (d *Dir) MarkBootstrapped() error {
	return d.update(func(id *Identity) error {
		switch id.Stage {
		case StageCommitted:
			id.Stage = StageMember
			return nil
		case StageMember:
			return errUnchanged
		}
		return fmt.Errorf("mark bootstrapped: identity is %s", id.Stage)
	})
}

// Renew gives a member a new server id, for a node whose log has lost what it
// had acknowledged: under its old id it could help to elect a leader that lacks
// committed entries. It has to join its cluster again, as a new member. The
// caller removes raft's data after that and not before: an empty log under the
// old id is the very thing to prevent. It does so also at a start that finds
// Identity.Former set in StageEmpty, since a crash may have come in between.
func (d *Dir) Renew() error {
	return d.update(func(id *Identity) error {
		if id.Stage != StageMember {
			return fmt.Errorf("renew the server id: identity is %s", id.Stage)
		}
		id.ServerID = newServerID(id.Name)
		id.Former = id.Cluster.ID
		id.Stage, id.Cluster, id.Logged = StageEmpty, ClusterInfo{}, false
		return nil
	})
}

// MarkLogged records that this node has a raft log from now on. It must come
// after the log was made and before raft writes to it. A second call does
// nothing.
func (d *Dir) MarkLogged() error {
	return d.update(func(id *Identity) error {
		if id.Logged {
			return errUnchanged
		}
		id.Logged = true
		return nil
	})
}

func (d *Dir) setAddresses(address, gossip string) error {
	return d.update(func(id *Identity) error {
		if id.Address == address && id.GossipAddress == gossip {
			return errUnchanged
		}
		id.Address, id.GossipAddress = address, gossip
		return nil
	})
}

func (d *Dir) setPeers(ps []Peer) error {
	if len(ps) > peersMax {
		ps = ps[:peersMax]
	}
	return d.update(func(id *Identity) error {
		if slices.Equal(id.Peers, ps) {
			return errUnchanged
		}
		id.Peers = slices.Clone(ps)
		return nil
	})
}

// errUnchanged, returned by an edit, means that there is nothing to write.
var errUnchanged = errors.New("unchanged")

// update edits a copy of the identity, writes it durably and only then lets it
// be seen. Edits come one after the other. A write that failed leaves unknown
// what is on disk, so it is the last.
func (d *Dir) update(edit func(id *Identity) error) error {
	<-d.change
	defer func() { d.change <- struct{}{} }()
	d.mu.Lock()
	id, err := d.identity.clone(), d.err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := edit(&id); err != nil {
		if errors.Is(err, errUnchanged) {
			return nil
		}
		return err
	}
	werr := d.write(encodeIdentity(id))
	d.mu.Lock()
	defer d.mu.Unlock()
	if werr != nil {
		d.err = fmt.Errorf("write identity: %w", werr)
		return d.err
	}
	d.identity = id
	return nil
}

// Close releases the lock. It may be called twice.
func (d *Dir) Close() error {
	<-d.change
	defer func() { d.change <- struct{}{} }()
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(d.err, ErrDirClosed) {
		return nil
	}
	d.err = ErrDirClosed
	return d.lock.Close()
}

// writeDurably replaces a file so that after a crash at any point either the
// old or the new content is there, whole.
func writeDurably(dir, name, temp string, content []byte) error {
	tempPath := filepath.Join(dir, temp)
	f, err := os.OpenFile(tempPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tempPath, filepath.Join(dir, name)); err != nil {
		return err
	}
	df, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = df.Sync()
	if cerr := df.Close(); err == nil {
		err = cerr
	}
	return err
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}

// failed is the write error after which nothing is written any more.
func (d *Dir) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
