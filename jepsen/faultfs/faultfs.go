package faultfs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dataDir and lostDir are in the backing directory.
const (
	dataDir = "data"
	lostDir = "lost"
)

// FS is a faulty disk. It is safe for concurrent use.
type FS struct {
	backing, dir string
	rules        *rules
	contents     contents
	names        *names

	steps steps

	mu      sync.Mutex // guards below
	mounted *mount     // nil after Close
	ended   sync.WaitGroup
}

// mount is one time that the disk is under power. What was opened in it stays
// broken when the power comes back.
type mount struct {
	fs     *FS
	server *fuse.Server
	root   fs.InodeEmbedder
	power  sync.RWMutex // held for reading by an operation; guards off
	off    bool
}

// Mount mounts a disk at dir. Both directories must exist; what is in data below
// backing is the disk's content, and durable. It takes root, and /dev/fuse.
func Mount(backing, dir string) (*FS, error) {
	data := filepath.Join(backing, dataDir)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	n, err := openNames(filepath.Join(backing, lostDir))
	if err != nil {
		return nil, err
	}
	s := &FS{backing: backing, dir: dir, rules: newRules(), contents: contents{of: map[uint64]*content{}}, names: n}
	if s.mounted, err = s.mount(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *FS) mount() (*mount, error) {
	m := &mount{fs: s}
	root, err := s.root(m)
	if err != nil {
		return nil, err
	}
	m.root = root
	second := time.Second
	var never time.Duration
	m.server, err = fs.Mount(s.dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{
			FsName: s.backing, Name: "faultfs", DirectMountStrict: true, DisableXAttrs: true, AllowOther: true,
			MaxWrite: 1 << 20, ExplicitDataCacheControl: true, Logger: log.New(io.Discard, "", 0),
		},
		// Nobody else changes the files, except a power cut, and that mounts anew.
		EntryTimeout: &second, AttrTimeout: &second, NegativeTimeout: &never,
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w (it takes root and /dev/fuse)", s.dir, err)
	}
	return m, nil
}

func (s *FS) root(m *mount) (fs.InodeEmbedder, error) {
	path := filepath.Join(s.backing, dataDir)
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return nil, err
	}
	r := &fs.LoopbackRoot{Path: path, Dev: uint64(st.Dev)}
	r.NewNode = func(*fs.LoopbackRoot, *fs.Inode, string, *syscall.Stat_t) fs.InodeEmbedder {
		return &node{LoopbackNode: fs.LoopbackNode{RootData: r}, m: m}
	}
	n := r.NewNode(r, nil, "", &st)
	r.RootNode = n
	return n, nil
}

// Dir is where the disk is mounted.
func (s *FS) Dir() string { return s.dir }

// ErrPower is wrapped by the error of Cut when the power is off, and of PowerOn when
// it is on.
var ErrPower = errors.New("the power is already so")

// Loss is what a power cut leaves of what was not durable.
type Loss struct {
	// Keep: all of it. Then the cut is no more than the end of a process.
	Keep bool
	// Tear: some of it, chosen by the seed. Otherwise nothing.
	Tear bool
	Seed uint64
}

// Cut cuts the power. Every operation fails with EIO until PowerOn, and for ever
// on what was open. All rules are forgotten.
func (s *FS) Cut(l Loss) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mounted
	if m == nil {
		return os.ErrClosed
	}
	m.power.Lock()
	if m.off {
		m.power.Unlock()
		return fmt.Errorf("cut: %w", ErrPower)
	}
	m.off = true
	m.power.Unlock()
	s.rules.heal() // what hangs is answered now
	s.steps.forget()
	if l.Keep {
		return nil
	}
	var r *rand.Rand
	if l.Tear {
		r = rand.New(rand.NewPCG(l.Seed, 0))
	}
	var errs []error
	for _, c := range s.contents.all() {
		errs = append(errs, c.lose(r))
	}
	errs = append(errs, s.names.lose(r))
	return errors.Join(errs...)
}

// PowerOn mounts the disk again.
func (s *FS) PowerOn() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounted == nil {
		return os.ErrClosed
	}
	s.mounted.power.RLock()
	off := s.mounted.off
	s.mounted.power.RUnlock()
	if !off {
		return fmt.Errorf("power on: %w", ErrPower)
	}
	if err := s.unmount(); err != nil {
		return err
	}
	m, err := s.mount()
	if err == nil {
		s.mounted = m
	}
	return err
}

// unmount takes the mount out of sight. Who has a file open in it keeps it, broken.
func (s *FS) unmount() error {
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	server := s.mounted.server
	s.ended.Go(server.Wait)
	return nil
}

// Add puts a rule in force. For one about reads the kernel forgets what it has of the
// files, else it would read little. It does so before: of a file whose read hangs it
// forgets nothing until that has ended.
func (s *FS) Add(r Rule) error {
	if len(r.Ops) == 0 || slices.Contains(r.Ops, OpRead) {
		s.mu.Lock()
		m := s.mounted
		s.mu.Unlock()
		if m == nil {
			return os.ErrClosed
		}
		forget(m.root.EmbeddedInode())
	}
	return s.rules.add(r)
}

// forget takes what is below n out of the kernel's memory. Nothing is lost: what is
// written goes through it.
func forget(n *fs.Inode) {
	for _, c := range n.Children() {
		forget(c)
	}
	if !n.IsDir() {
		_ = n.NotifyContent(0, 0) // the kernel may not know it any more
	}
}

// Heal forgets all rules; what hangs goes on.
func (s *FS) Heal() { s.rules.heal() }

// Stats returns how many operations there were of each kind, and how many of them
// a rule was applied to.
func (s *FS) Stats() (seen, hits map[Op]int) { return s.rules.counts() }

// Hit is the newest operation that a rule was applied to, kind and path; "" when there
// was none.
func (s *FS) Hit() string { return s.rules.newestHit() }

// Pending are the names, as last elements of paths, that are not durable, and how
// many files have content that is not.
func (s *FS) Pending() (names []string, files int) {
	for _, c := range s.contents.all() {
		c.mu.Lock()
		if c.f != nil {
			files++
		}
		c.mu.Unlock()
	}
	return s.names.pending(), files
}

// Close unmounts the disk and waits until nobody uses it. What is not durable is
// kept. It may be called twice.
func (s *FS) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounted == nil {
		return nil
	}
	s.rules.heal()
	if err := s.unmount(); err != nil {
		return err
	}
	s.mounted = nil
	s.ended.Wait()
	for _, c := range s.contents.all() {
		c.close()
	}
	return nil
}

// truncate cuts a file that is not open by whom asks.
func (s *FS) truncate(path string, size int64) syscall.Errno {
	return s.changeLength(path, size, func() syscall.Errno { return errno(syscall.Truncate(path, size)) })
}

// changeLength is change, which sets the length of a file by its name.
func (s *FS) changeLength(path string, size int64, change func() syscall.Errno) syscall.Errno {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return errno(err)
	}
	defer f.Close()
	inode, err := inodeOf(path)
	if err != nil {
		return errno(err)
	}
	return s.contents.get(inode).truncate(int(f.Fd()), size, change)
}
