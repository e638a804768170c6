package raftlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// life is one life of a node's storage in files.
type life struct {
	*Store
	snaps  raft.SnapshotStore
	fatals *fatals
}

// tryLife opens what is in dir. A node that has had a log there is known.
func tryLife(t *testing.T, dir, kind string, known bool) (*life, error) {
	t.Helper()
	f := &fatals{}
	s, err := Open(Options{Dir: filepath.Join(dir, "log"), Kind: kind, Logger: quiet, Fatal: f.record, SegmentBytes: 64 << 10, Owner: "n1-a", Known: known})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { s.Close() })
	snaps, err := s.OpenSnapshots(dir, 2)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &life{s, snaps, f}, nil
}

func newLife(t *testing.T, dir, kind string) *life {
	t.Helper()
	l, err := tryLife(t, dir, kind, false)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wantStart starts from what a crash leaves behind, and wants it accepted, or refused as lost.
func wantStart(t *testing.T, dir, kind string, lost bool, says string) {
	t.Helper()
	l, err := tryLife(t, dir, kind, true)
	if err == nil {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	switch {
	case !lost && err != nil:
		t.Fatalf("a legal state was refused: %v", err)
	case lost && !errors.Is(err, ErrLogLost):
		t.Fatalf("started with %v, want ErrLogLost", err)
	case lost && (!strings.Contains(err.Error(), "onceq node wipe") || !strings.Contains(err.Error(), says)):
		t.Fatalf("the error does not say %q and what to do: %v", says, err)
	}
}

// crash copies what is in the files at this moment. What waits to be written to the high-water file is written before when flush is set.
func (l *life) crash(t *testing.T, dir string, flush bool) string {
	t.Helper()
	if flush {
		if err := l.high.write(); err != nil {
			t.Fatal(err)
		}
	}
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// fileKinds runs the test over each store that is in files.
func fileKinds(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{KindWAL, KindBolt} {
		t.Run(kind, func(t *testing.T) { test(t, kind) })
	}
}

// segment is the file of raft-wal that is written at present, and how far.
func segment(t *testing.T, dir string) (path string, used int) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "log", walDir, "*.wal"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no segment in %s: %v", dir, err)
	}
	path = all[len(all)-1]
	return path, len(bytes.TrimRight(mustRead(t, path), "\x00"))
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustWrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHighWater_LostTailOfTheWAL_IsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string, used int, early []byte)
	}{
		{"truncated", func(t *testing.T, path string, used int, _ []byte) {
			b := mustRead(t, path)
			if err := os.Truncate(path, int64(used/2)); err != nil {
				t.Fatal(err)
			}
			// What the file system gives back for a length that was durable before the bytes were.
			if err := os.Truncate(path, int64(len(b))); err != nil {
				t.Fatal(err)
			}
		}},
		{"last entry zeroed", func(t *testing.T, path string, used int, _ []byte) {
			b := mustRead(t, path)
			clear(b[used-24:])
			mustWrite(t, path, b)
		}},
		{"chunk rolled back", func(t *testing.T, path string, used int, early []byte) {
			b := mustRead(t, path)
			copy(b[used/2:used/2+512], early[used/2:])
			mustWrite(t, path, b)
		}},
		{"file rolled back", func(t *testing.T, path string, used int, early []byte) { mustWrite(t, path, early) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := newLife(t, dir, KindWAL)
			for _, e := range owns(1, 20, 3) {
				mustStore(t, l.Store, e)
			}
			path, _ := segment(t, dir)
			early := mustRead(t, path)
			for _, e := range owns(21, 90, 3) {
				mustStore(t, l.Store, e)
			}
			after := l.crash(t, dir, true)
			wantStart(t, l.crash(t, dir, true), KindWAL, false, "")
			path, used := segment(t, after)
			c.damage(t, path, used, early)
			wantStart(t, after, KindWAL, true, "entry 90 of term 3 was acknowledged")
			l.fatals.wantNone(t)
		})
	}
}

func TestHighWater_LostFiles_AreRefused(t *testing.T) {
	remove := func(names ...string) func(t *testing.T, dir, early string) {
		return func(t *testing.T, dir, _ string) {
			for _, n := range names {
				if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	rollBack := func(name string) func(t *testing.T, dir, early string) {
		return func(t *testing.T, dir, early string) {
			mustWrite(t, filepath.Join(dir, name), mustRead(t, filepath.Join(early, name)))
		}
	}
	for _, c := range []struct {
		name, kind, says string
		damage           func(t *testing.T, dir, early string)
	}{
		{"log of boltdb is gone", KindBolt, "acknowledged", remove("log/log.db")},
		{"log of boltdb is an older one", KindBolt, "entry 30 of term 2 was acknowledged", rollBack("log/log.db")},
		{"log of the WAL is gone", KindWAL, "acknowledged", remove("log/wal")},
		{"stable store is gone", KindWAL, "stable store", remove("log/stable.db")},
		{"stable store is an older one", KindWAL, "vote in term 6, it has said 7 and 7", rollBack("log/stable.db")},
		{"newest snapshot is gone", KindWAL, "newest snapshot is at 0, there was one at 20", remove("snapshots")},
		{"high-water file is gone", KindWAL, "there is no", remove("log/highwater")},
		{"all is gone", KindWAL, "there is no", remove("log", "snapshots")},
		{"high-water file is of another node", KindWAL, "belongs to another node", func(t *testing.T, dir, _ string) {
			f := &markFile{owner: "n2-b", sequence: 9}
			block := make([]byte, markBlockBytes)
			copy(block, f.encode(HighWater{Index: 1}))
			mustWrite(t, filepath.Join(dir, "log", HighWaterFile), block)
		}},
		{"high-water file is zeros", KindWAL, "damaged", func(t *testing.T, dir, _ string) {
			mustWrite(t, filepath.Join(dir, "log", HighWaterFile), make([]byte, markBlockBytes))
		}},
		{"high-water file is short", KindWAL, "damaged", func(t *testing.T, dir, _ string) {
			mustWrite(t, filepath.Join(dir, "log", HighWaterFile), []byte(highWaterMagic))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := newLife(t, dir, c.kind)
			vote := func(term uint64) {
				for _, err := range []error{
					l.SetUint64([]byte(raftCurrentTerm), term),
					l.SetUint64([]byte(raftVoteTerm), term), l.Set([]byte(raftVoteCandidate), []byte("a")),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			vote(6)
			mustStore(t, l.Store, owns(1, 10, 2)...)
			early := l.crash(t, dir, true)
			mustStore(t, l.Store, owns(11, 30, 2)...)
			if err := l.SetUint64([]byte(raftCurrentTerm), 7); err != nil {
				t.Fatal(err)
			}
			vote(7)
			if err := writeSnapshot(t, l.snaps, 20, 2, "x"); err != nil {
				t.Fatal(err)
			}
			after := l.crash(t, dir, true)
			wantStart(t, l.crash(t, dir, true), c.kind, false, "")
			c.damage(t, after, early)
			wantStart(t, after, c.kind, true, c.says)
			wantStart(t, after, c.kind, true, "") // and again: the refused start has changed nothing
		})
	}
}

// A leader takes back what no majority had: at every moment of that a crash leaves a legal state.
func TestHighWater_TruncationByANewLeader_IsLegal(t *testing.T) {
	for _, from := range []uint64{1, 15, 30} {
		fileKinds(t, func(t *testing.T, kind string) {
			dir := t.TempDir()
			l := newLife(t, dir, kind)
			mustStore(t, l.Store, owns(1, 30, 2)...)
			control := l.crash(t, dir, true)
			if err := l.lower(1, from); err != nil {
				t.Fatal(err)
			}
			wantStart(t, l.crash(t, dir, false), kind, false, "") // the mark is lower, nothing is deleted yet
			if err := l.DeleteRange(from, 30); err != nil {
				t.Fatal(err)
			}
			wantBounds(t, l.Store, min(1, from-1), from-1)
			after := l.crash(t, dir, false)
			wantStart(t, l.crash(t, dir, false), kind, false, "")
			// With the mark from before it is refused: what makes the difference is that the mark was lowered first.
			mark := filepath.Join("log", HighWaterFile)
			mustWrite(t, filepath.Join(after, mark), mustRead(t, filepath.Join(control, mark)))
			wantStart(t, after, kind, true, "entry 30 of term 2 was acknowledged")

			mustStore(t, l.Store, owns(from, from+1, 3)...)
			wantStart(t, l.crash(t, dir, false), kind, false, "") // the new entries are not in the file yet
			after = l.crash(t, dir, true)
			wantStart(t, l.crash(t, dir, true), kind, false, "")
			// The old entries under the new mark: the log of another life.
			if err := os.RemoveAll(filepath.Join(after, "log", map[string]string{KindWAL: walDir, KindBolt: BoltFile}[kind])); err != nil {
				t.Fatal(err)
			}
			name := map[string]string{KindWAL: walDir, KindBolt: BoltFile}[kind]
			if kind == KindWAL {
				if err := os.CopyFS(filepath.Join(after, "log", name), os.DirFS(filepath.Join(control, "log", name))); err != nil {
					t.Fatal(err)
				}
			} else {
				mustWrite(t, filepath.Join(after, "log", name), mustRead(t, filepath.Join(control, "log", name)))
			}
			if from+1 <= 30 {
				wantStart(t, after, kind, true, "is of term 2 (0: it is missing), acknowledged was one of term 3")
			}
			l.fatals.wantNone(t)
		})
	}
}

// An installed snapshot replaces the log, or a log that goes on behind it: at every moment a crash leaves a legal state.
func TestHighWater_InstalledSnapshot_IsLegal(t *testing.T) {
	for _, c := range []struct{ logEnd, snapshot uint64 }{{30, 50}, {30, 30}, {50, 30}, {0, 30}} {
		fileKinds(t, func(t *testing.T, kind string) {
			dir := t.TempDir()
			l := newLife(t, dir, kind)
			if c.logEnd > 0 {
				mustStore(t, l.Store, owns(1, c.logEnd, 2)...)
			}
			wantStart(t, l.crash(t, dir, true), kind, false, "")
			if err := writeSnapshot(t, l.snaps, c.snapshot, 3, "state"); err != nil {
				t.Fatal(err)
			}
			wantStart(t, l.crash(t, dir, false), kind, false, "")
			err := l.DeleteRange(1, max(c.logEnd, 1))
			// The log is of an older term, so its end is outdated also at the snapshot itself.
			if over := c.logEnd >= c.snapshot; over != errors.Is(err, ErrRestart) || !over && err != nil {
				t.Fatalf("emptied the log: %v", err)
			}
			after := l.crash(t, dir, false)
			wantStart(t, l.crash(t, dir, false), kind, false, "")
			if err := os.RemoveAll(filepath.Join(after, fileSnapshotsDir)); err != nil {
				t.Fatal(err)
			}
			wantStart(t, after, kind, true, "log and snapshot end at 0")
		})
	}
}

func TestHighWater_CleanStop_IsExact(t *testing.T) {
	fileKinds(t, func(t *testing.T, kind string) {
		dir := t.TempDir()
		l := newLife(t, dir, kind)
		mustStore(t, l.Store, owns(1, 30, 2)...)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantStart(t, dir, kind, false, "") // and stops in order again
		// A log that goes on behind a stop in order was not written by this node's life.
		bare, err := Open(Options{Dir: filepath.Join(dir, "log"), Kind: kind, Logger: quiet, Fatal: l.fatals.record, SegmentBytes: 64 << 10, Owner: "n1-a"})
		if err != nil {
			t.Fatal(err)
		}
		mustStore(t, bare, owns(31, 31, 2)...)
		if err := bare.Close(); err != nil {
			t.Fatal(err)
		}
		wantStart(t, dir, kind, true, "the node stopped in order with its log ending at 30")
	})
}

// After a crash the file may lag behind the log, and one of its two slots may be torn.
func TestHighWater_AfterACrash_MayLagAndBeTorn(t *testing.T) {
	dir := t.TempDir()
	l := newLife(t, dir, KindWAL)
	mustStore(t, l.Store, owns(1, 10, 2)...)
	if err := l.high.write(); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l.Store, owns(11, 20, 2)...)
	wantStart(t, l.crash(t, dir, false), KindWAL, false, "")
	for slot := range 2 {
		after := l.crash(t, dir, true)
		path := filepath.Join(after, "log", HighWaterFile)
		b := mustRead(t, path)
		b[slot*markSlotBytes+20] ^= 1
		mustWrite(t, path, b)
		wantStart(t, after, KindWAL, false, "")
	}
}

// A directory from before there was a high-water file gets one.
func TestHighWater_LogWithoutAFile_OfANodeNotKnown_IsTaken(t *testing.T) {
	dir := t.TempDir()
	l := newLife(t, dir, KindWAL)
	mustStore(t, l.Store, owns(1, 30, 2)...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "log", HighWaterFile)); err != nil {
		t.Fatal(err)
	}
	l = newLife(t, dir, KindWAL)
	if m := l.high.mark; m.Index != 30 || m.Term != 2 {
		t.Fatalf("the new file says %+v", m)
	}
	wantStart(t, l.crash(t, dir, false), KindWAL, false, "")
}

// What was acknowledged gets to the file by itself, within a period of activity, and no sooner.
func TestHighWater_IsWrittenLazily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := newLife(t, dir, KindWAL)
		onDisk := func() uint64 {
			k := &markFile{owner: "n1-a"}
			f, err := os.Open(filepath.Join(dir, "log", HighWaterFile))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := k.read(f); err != nil {
				t.Fatal(err)
			}
			return k.found.Index
		}
		for i := range uint64(5) {
			mustStore(t, l.Store, owns(1+10*i, 10+10*i, 2)...)
			if got := onDisk(); got != 10*i {
				t.Fatalf("the file says %d right after the append of %d", got, 10+10*i)
			}
			time.Sleep(2 * highWaterPeriod) // virtual
			if got := onDisk(); got != 10+10*i {
				t.Fatalf("the file says %d a period after the append of %d", got, 10+10*i)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A storage error of the file ends the node like every other.
func TestHighWater_WriteError_IsFatal(t *testing.T) {
	l := newLife(t, t.TempDir(), KindWAL)
	mustStore(t, l.Store, owns(1, 10, 2)...)
	broken := errors.New("input/output error")
	l.high.file.sync = func() error { return broken }
	if err := l.DeleteRange(5, 10); !errors.Is(err, broken) {
		t.Fatalf("DeleteRange = %v", err)
	}
	l.fatals.wantOne(t, broken)
	wantBounds(t, l.Store, 1, 10) // nothing was deleted under a mark that says otherwise
	if err := l.StoreLogs(owns(11, 11, 2)); !errors.Is(err, ErrFailed) {
		t.Fatalf("StoreLogs after the failure = %v", err)
	}
}
