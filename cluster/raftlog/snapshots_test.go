package raftlog

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

var oneServer = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a", Suffrage: raft.Voter}}}

// snapshotTransport is for the one thing that a FileSnapshotStore wants of it: EncodePeer.
func snapshotTransport(t *testing.T) raft.Transport {
	_, trans := raft.NewInmemTransport("a")
	t.Cleanup(func() { trans.Close() })
	return trans
}

func writeSnapshot(t *testing.T, s raft.SnapshotStore, index, term uint64, content string) error {
	t.Helper()
	sink, err := s.Create(1, index, term, oneServer, 1, snapshotTransport(t))
	if err != nil {
		return err
	}
	if _, err := io.WriteString(sink, content); err != nil {
		return err
	}
	return sink.Close()
}

func wantSnapshot(t *testing.T, s raft.SnapshotStore, index uint64, content string) {
	t.Helper()
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Index != index {
		t.Fatalf("List = %v, %v; want %d alone: raft goes on to an older one and lacks what is between", all, err, index)
	}
	_, r, err := s.Open(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != content {
		t.Fatalf("snapshot %d holds %q, %v; want %q", index, b, err, content)
	}
}

// eachSnapshots runs the test on files and in memory. open may be called again and finds what was closed.
func eachSnapshots(t *testing.T, test func(t *testing.T, log *Store, open func() raft.SnapshotStore, f *fatals)) {
	run := func(name string, open func(t *testing.T, log *Store) (raft.SnapshotStore, error)) {
		t.Run(name, func(t *testing.T) {
			f, mem := &fatals{}, raft.NewInmemStore()
			log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
			defer log.Close()
			test(t, log, func() raft.SnapshotStore {
				s, err := open(t, log)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}, f)
		})
	}
	dirs := map[*Store]string{}
	run("files", func(t *testing.T, log *Store) (raft.SnapshotStore, error) {
		if dirs[log] == "" {
			dirs[log] = t.TempDir()
		}
		return log.OpenSnapshots(dirs[log], 2)
	})
	mems := map[*Store]*MemorySnapshots{}
	run("memory", func(t *testing.T, log *Store) (raft.SnapshotStore, error) {
		if mems[log] == nil {
			mems[log] = NewMemorySnapshots()
		}
		return log.WrapSnapshots(mems[log])
	})
}

func TestSnapshots_NewestIsReported(t *testing.T) {
	eachSnapshots(t, func(t *testing.T, log *Store, open func() raft.SnapshotStore, f *fatals) {
		s := open()
		if all, err := s.List(); err != nil || len(all) != 0 {
			t.Fatalf("List = %v, %v", all, err)
		}
		want := func(index, term uint64) {
			t.Helper()
			if got := log.newestSnapshot(); got != (snapshotID{index, term}) {
				t.Fatalf("the log was told %v, want %d of term %d", got, index, term)
			}
		}
		want(0, 0)
		sink, err := s.Create(1, 10, 2, oneServer, 1, snapshotTransport(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(sink, "half"); err != nil {
			t.Fatal(err)
		}
		want(0, 0) // not before it is durable
		if err := sink.Cancel(); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err == nil {
			t.Fatal("a cancelled snapshot closed well: raft would truncate the log")
		}
		want(0, 0)
		for i := uint64(1); i <= 4; i++ {
			if err := writeSnapshot(t, s, 10*i, i, strings.Repeat("content", int(i))); err != nil {
				t.Fatal(err)
			}
			want(10*i, i)
			wantSnapshot(t, s, 10*i, strings.Repeat("content", int(i)))
		}
		log.SetSnapshot(0, 0)
		s = open()
		want(40, 4)
		wantSnapshot(t, s, 40, strings.Repeat("content", 4))
		f.wantNone(t)
	})
}

func TestSnapshots_OlderOne_IsRefused(t *testing.T) {
	eachSnapshots(t, func(t *testing.T, log *Store, open func() raft.SnapshotStore, f *fatals) {
		s := open()
		if err := writeSnapshot(t, s, 20, 2, "newest"); err != nil {
			t.Fatal(err)
		}
		if err := writeSnapshot(t, s, 19, 3, "older"); !errors.Is(err, ErrStaleSnapshot) {
			t.Fatalf("older one: %v", err)
		}
		if err := writeSnapshot(t, s, 20, 2, "again"); err != nil {
			t.Fatalf("the same again, with nothing behind it: %v", err)
		}
		mustStore(t, log, sealed(21, 2, "acknowledged"))
		if err := writeSnapshot(t, s, 20, 2, "again"); !errors.Is(err, ErrStaleSnapshot) {
			t.Fatalf("the same again, over acknowledged entries: %v", err)
		}
		wantSnapshot(t, s, 20, "again")
		if err := writeSnapshot(t, s, 25, 2, "next"); err != nil {
			t.Fatal(err)
		}
		wantSnapshot(t, s, 25, "next")
		f.wantNone(t)
	})
}

// A snapshot of the leader is installed while this node writes one of its own.
func TestSnapshots_OlderOneThatEndsLater_DoesNotBecomeNewest(t *testing.T) {
	eachSnapshots(t, func(t *testing.T, log *Store, open func() raft.SnapshotStore, f *fatals) {
		s := open()
		own, err := s.Create(1, 10, 1, oneServer, 1, snapshotTransport(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := writeSnapshot(t, s, 20, 2, "installed"); err != nil {
			t.Fatal(err)
		}
		if err := own.Close(); !errors.Is(err, ErrStaleSnapshot) {
			t.Fatalf("its end: %v, and the library must not take it for its newest", err)
		}
		if got := log.newestSnapshot(); got != (snapshotID{20, 2}) {
			t.Fatalf("newest is %v", got)
		}
		wantSnapshot(t, s, 20, "installed")
		f.wantNone(t)
	})
}

func TestOpenSnapshots_DamagedNewest_IsRefused(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"flipped bit":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "state.bin"), []byte("neweSt"), 0o600) },
		"truncated":        func(dir string) error { return os.Truncate(filepath.Join(dir, "state.bin"), 3) },
		"state gone":       func(dir string) error { return os.Remove(filepath.Join(dir, "state.bin")) },
		"description gone": func(dir string) error { return os.Remove(filepath.Join(dir, snapshotMetaFile)) },
		"description torn": func(dir string) error { return os.Truncate(filepath.Join(dir, snapshotMetaFile), 10) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			told := uint64(0)
			open := func() (raft.SnapshotStore, error) {
				return OpenSnapshots(dir, 2, func(index, _ uint64) { told = index }, quiet)
			}
			s, err := open()
			if err != nil {
				t.Fatal(err)
			}
			for i, content := range []string{"oldest", "newest"} {
				if err := writeSnapshot(t, s, uint64(i+1)*10, 1, content); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := open(); err != nil || told != 20 {
				t.Fatalf("undamaged: %v, told %d", err, told)
			}
			all, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			told = 0
			if err := damage(filepath.Join(dir, fileSnapshotsDir, all[0].ID)); err != nil {
				t.Fatal(err)
			}
			if _, err := open(); !errors.Is(err, ErrSnapshotDamaged) || told != 0 {
				t.Fatalf("opened: %v, told %d", err, told)
			}
		})
	}
}

// A description with other content can still be read: its checksum tells.
func TestOpenSnapshots_ChangedDescription_IsRefused(t *testing.T) {
	dir := t.TempDir()
	f := &fatals{}
	open := func() (raft.SnapshotStore, error) {
		inner := raft.NewInmemStore()
		s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
		t.Cleanup(func() { s.Close() })
		return s.OpenSnapshots(dir, 2)
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSnapshot(t, s, 20, 1, "content"); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileSnapshotsDir, all[0].ID, snapshotMetaFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const field = `"ConfigurationIndex":`
	other := strings.Replace(string(b), field, field+"7", 1)
	if other == string(b) {
		t.Fatalf("no %s in %s", field, b)
	}
	if _, err := open(); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); !errors.Is(err, ErrSnapshotDamaged) {
		t.Fatalf("opened: %v", err)
	}
}

// opensTwo opens the snapshots in a directory, of which the newest two are kept.
func opensTwo(t *testing.T, dir string) func() raft.SnapshotStore {
	return func() raft.SnapshotStore {
		t.Helper()
		s, err := OpenSnapshots(dir, 2, func(uint64, uint64) {}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestOpenSnapshots_UnfinishedOne_IsRemoved(t *testing.T) {
	dir := t.TempDir()
	open := opensTwo(t, dir)
	sink, err := open().Create(1, 10, 1, oneServer, 1, snapshotTransport(t))
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, fileSnapshotsDir, sink.ID()+fileSnapshotTemp)
	if _, err := os.Stat(left); err != nil {
		t.Fatal(err)
	}
	open() // as after a crash
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatalf("the unfinished snapshot is still there: %v", err)
	}
	sink.Cancel()
}

// An old snapshot is removed file by file, in any order, and a crash may come in between. The newer one is whole.
func TestOpenSnapshots_OlderOneHalfRemoved_IsNoDamage(t *testing.T) {
	for _, left := range [][]string{{"state.bin"}, {}, {snapshotMetaFile}} {
		dir := t.TempDir()
		open := func() raft.SnapshotStore {
			s, err := OpenSnapshots(dir, 2, func(uint64, uint64) {}, quiet)
			if err != nil {
				t.Fatalf("with %v left of the older one: %v", left, err)
			}
			return s
		}
		s := open()
		for i, content := range []string{"oldest", "newest"} {
			// The newer one has the higher term and, like after a snapshot was installed, need not have the longer name.
			if err := writeSnapshot(t, s, 9+uint64(i), 9+uint64(i), content); err != nil {
				t.Fatal(err)
			}
		}
		old, err := filepath.Glob(filepath.Join(dir, fileSnapshotsDir, "9-9-*"))
		if err != nil || len(old) != 1 {
			t.Fatal(old, err)
		}
		for _, name := range []string{"state.bin", snapshotMetaFile} {
			if !slices.Contains(left, name) {
				if err := os.Remove(filepath.Join(old[0], name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		wantSnapshot(t, open(), 10, "newest")
		if err := writeSnapshot(t, open(), 11, 10, "another"); err != nil {
			t.Fatal(err)
		}
		wantSnapshot(t, open(), 11, "another")
		if _, err := os.Stat(old[0]); !os.IsNotExist(err) {
			t.Errorf("with %v left of the older one: it is still there: %v", left, err)
		}
	}
}

// brokenSnapshots loses the content of what it was given, or cannot write it.
type brokenSnapshots struct {
	*MemorySnapshots
	create, write, close, open error
}

type brokenSink struct {
	raft.SnapshotSink
	store *brokenSnapshots
}

func (b *brokenSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	if b.create != nil {
		return nil, b.create
	}
	sink, err := b.MemorySnapshots.Create(v, index, term, c, ci, t)
	return &brokenSink{sink, b}, err
}

func (b *brokenSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if b.open != nil {
		return nil, nil, b.open
	}
	return b.MemorySnapshots.Open(id)
}

func (k *brokenSink) Write(b []byte) (int, error) {
	if k.store.write != nil {
		return 0, k.store.write
	}
	return k.SnapshotSink.Write(b)
}

func (k *brokenSink) Close() error {
	if k.store.close != nil {
		return k.store.close
	}
	return k.SnapshotSink.Close()
}

func TestSnapshots_ThatCannotBeWrittenOrReadBack_AreFatal(t *testing.T) {
	for name, breakIt := range map[string]func(*brokenSnapshots){
		"create":    func(b *brokenSnapshots) { b.create = errDisk },
		"write":     func(b *brokenSnapshots) { b.write = errDisk },
		"close":     func(b *brokenSnapshots) { b.close = errDisk },
		"read back": func(b *brokenSnapshots) { b.open = errDisk },
	} {
		t.Run(name, func(t *testing.T) {
			f, mem := &fatals{}, raft.NewInmemStore()
			log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
			defer log.Close()
			broken := &brokenSnapshots{MemorySnapshots: NewMemorySnapshots()}
			s, err := log.WrapSnapshots(broken)
			if err != nil {
				t.Fatal(err)
			}
			breakIt(broken)
			if err := writeSnapshot(t, s, 10, 1, "x"); !errors.Is(err, errDisk) {
				t.Fatalf("%v", err)
			}
			f.wantOne(t, errDisk)
			if got := log.newestSnapshot(); got.index != 0 {
				t.Fatalf("the log was told of %v", got)
			}
		})
	}
}

// A leader that cannot read its newest snapshot could send it to nobody, for ever.
func TestSnapshots_NewestThatCannotBeOpened_IsTold(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		told int
	}{
		"read error":              {errDisk, 1},
		"too many files open":     {&os.PathError{Op: "open", Path: "state.bin", Err: syscall.EMFILE}, 0},
		"too many on the machine": {&os.PathError{Op: "open", Path: "state.bin", Err: syscall.ENFILE}, 0},
		"it is not there":         {&os.PathError{Op: "open", Path: "state.bin", Err: syscall.ENOENT}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, mem := &fatals{}, raft.NewInmemStore()
			var told []error
			log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record, SnapshotDamaged: func(err error, _ bool) { told = append(told, err) }})
			defer log.Close()
			broken := &brokenSnapshots{MemorySnapshots: NewMemorySnapshots()}
			s, err := log.WrapSnapshots(broken)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeSnapshot(t, s, 10, 1, "x"); err != nil {
				t.Fatal(err)
			}
			all, err := s.List()
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			broken.open = c.err
			if _, _, err := s.Open("1-9-1"); !errors.Is(err, c.err) {
				t.Fatalf("one that is not the newest: %v", err)
			}
			if len(told) > 0 {
				t.Fatalf("of one that is not the newest is told: %v", told)
			}
			if _, _, err := s.Open(all[0].ID); !errors.Is(err, c.err) || errors.Is(err, ErrSnapshotDamaged) != (c.told > 0) {
				t.Fatalf("Open = %v", err)
			}
			if len(told) != c.told || c.told > 0 && !errors.Is(told[0], ErrSnapshotDamaged) {
				t.Errorf("told of %v", told)
			}
			f.wantNone(t) // the state is in memory
		})
	}
}

// The library's checksum has no error of its own.
func TestSnapshots_NewestWithAFlippedBit_IsTold(t *testing.T) {
	dir, f, mem := t.TempDir(), &fatals{}, raft.NewInmemStore()
	told := 0
	log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record, SnapshotDamaged: func(error, bool) { told++ }})
	defer log.Close()
	s, err := log.OpenSnapshots(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, content := range []string{"oldest", "newest"} {
		if err := writeSnapshot(t, s, uint64(i+1)*10, 1, content); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	path := filepath.Join(dir, fileSnapshotsDir, all[0].ID, snapshotStateFile)
	mustWrite(t, path, []byte("neweSt"))
	if _, _, err := log.ReadSnapshot(all[0].ID); err == nil {
		t.Fatal("it can be read")
	}
	if told != 0 {
		t.Error("who can do without it has another taken")
	}
	if _, _, err := s.Open(all[0].ID); !errors.Is(err, ErrSnapshotDamaged) || !strings.Contains(err.Error(), path) {
		t.Fatalf("Open = %v, want %s", err, path)
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	f.wantNone(t)
}

// The state machine closes the sink and may drop the error; raft closes it again and truncates the log if that went well.
func TestSnapshots_FailedClose_FailsAgain(t *testing.T) {
	f, mem := &fatals{}, raft.NewInmemStore()
	log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
	defer log.Close()
	s, err := log.WrapSnapshots(&brokenSnapshots{MemorySnapshots: NewMemorySnapshots(), close: errDisk})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := s.Create(1, 10, 1, oneServer, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := sink.Close(); !errors.Is(err, errDisk) {
			t.Fatalf("Close = %v", err)
		}
	}
}
