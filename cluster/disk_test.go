package cluster

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"testing"

	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

func TestJudgeDisk(t *testing.T) {
	for _, c := range []struct {
		before diskLevel
		free   uint64
		want   diskLevel
	}{
		{diskOK, 1000, diskOK}, {diskOK, 999, diskLow}, {diskOK, 499, diskFull},
		{diskLow, 1000, diskLow}, {diskLow, 1099, diskLow}, {diskLow, 1100, diskOK}, {diskLow, 499, diskFull},
		{diskFull, 500, diskFull}, {diskFull, 549, diskFull}, {diskFull, 550, diskLow}, {diskFull, 1099, diskLow}, {diskFull, 1100, diskOK},
	} {
		if got := judgeDisk(c.before, c.free, 1000); got != c.want {
			t.Errorf("%d free of 1000 wanted, %v before: %v, want %v", c.free, c.before, got, c.want)
		}
	}
}

// fakeDisk is a disk of which a test says what is free.
type fakeDisk struct {
	disk
	freeNow uint64
	other   diskLevel
	told    []diskLevel
	cleared int
	stirred int
}

func newFakeDisk() *fakeDisk {
	f := &fakeDisk{freeNow: 10_000}
	f.disk = disk{
		space:  func() (uint64, uint64, error) { return f.freeNow, 10_000, nil },
		need:   func() uint64 { return 100 },
		others: func() diskLevel { return f.other },
		tell:   func(l diskLevel) error { f.told = append(f.told, l); return nil },
		writes: func() uint64 { return 0 },
		clear:  func() { f.cleared++ },
		stir:   func() { f.stirred++ },
		log:    slog.New(slog.DiscardHandler),
	}
	return f
}

// At each level what is refused, and what makes room, which never is.
func TestDisk_Refuses(t *testing.T) {
	f := newFakeDisk()
	publishing := encoded(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a"))
	floor := encoded(wire.PublishFrame{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Session: 1, Epoch: 1, Floor: 7})
	check := func(free uint64, other diskLevel, publish, create bool) {
		t.Helper()
		f.freeNow, f.other = free, other
		if err := f.look(); err != nil {
			t.Fatal(err)
		}
		for op, taken := range map[wire.Op]bool{
			wire.OpPublish: publish, wire.OpAckPublish: publish, wire.OpEdit: true, wire.OpQueueUpdate: create, wire.OpQueueCreate: create, wire.OpOpenSession: create, wire.OpSeal: create,
			wire.OpSettle: true, wire.OpAttach: true, wire.OpLeave: true, wire.OpQueuePurge: true, wire.OpQueueDelete: true, wire.OpCloseSession: true,
		} {
			e := f.refuses(op, publishing)
			if (e == nil) != taken {
				t.Errorf("%v at %d free, another at %v: %v", op, free, other, e)
			}
			if e != nil && (e.Code != wire.CodeDiskFull || !e.Retriable || e.Text == "") {
				t.Errorf("%v is refused with %+v", op, e)
			}
		}
	}
	check(10_000, diskOK, true, true)
	check(999, diskOK, false, true) // 10 % of the file system
	check(499, diskOK, false, false)
	check(10_000, diskOK, true, true)
	check(10_000, diskLow, false, true) // the worst of all voters counts
	check(10_000, diskFull, false, false)
	f.need = func() uint64 { return 5000 }
	check(4999, diskOK, false, true) // segments and snapshots
	f.need = func() uint64 { return 100 }
	f.reserve = 3000
	check(2999, diskOK, false, true) // the operator
	check(3300, diskOK, true, true)
	want := []diskLevel{diskLow, diskFull, diskOK, diskLow, diskOK}
	if len(f.told) != len(want) {
		t.Fatalf("told %v, want each change once: %v", f.told, want)
	}
	for i := range want {
		if f.told[i] != want[i] {
			t.Fatalf("told %v, want %v", f.told, want)
		}
	}
	// A floor makes room for seals, and stores nothing.
	f.own.Store(uint32(diskLow))
	f.worst.Store(uint32(diskLow))
	if e := f.refuses(wire.OpPublish, floor); e != nil {
		t.Errorf("a frame that carries nothing is refused with %+v", e)
	}
	f.worst.Store(uint32(diskFull))
	if f.refuses(wire.OpPublish, floor) == nil {
		t.Error("the last room is given to floors")
	}
	var none *disk
	if none.refuses(wire.OpPublish, publishing) != nil {
		t.Error("a node in memory refuses")
	}
}

// A file system that does not answer is a storage error.
func TestDisk_SpaceUnknown_EndsTheNode(t *testing.T) {
	f := newFakeDisk()
	broken := errors.New("input/output error")
	f.space = func() (uint64, uint64, error) { return 0, 0, broken }
	var got error
	f.run(nil, func(err error) { got = err })
	if !errors.Is(got, broken) {
		t.Fatalf("ended with %v", got)
	}
}

// A full disk has snapshots taken, and gives its ballast up for them when there is
// little left. What that frees lifts no refusal, and it comes back with the room.
func TestDisk_Full_GivesUpItsBallast(t *testing.T) {
	f := newFakeDisk()
	f.log = slog.New(slog.DiscardHandler)
	f.ballast = openBallast(t.TempDir(), 300, f.log)
	f.need = func() uint64 { return 1000 }
	f.writes = func() uint64 { return 100 }
	used := uint64(0) // by others
	f.space = func() (uint64, uint64, error) { return 10_000 - used - f.ballast.size(), 10_000, nil }
	look := func(others uint64, level diskLevel, ballast uint64, cleared int) {
		t.Helper()
		used = others
		if err := f.look(); err != nil {
			t.Fatal(err)
		}
		if got := diskLevel(f.own.Load()); got != level || f.ballast.size() != ballast || f.cleared != cleared {
			t.Errorf("others use %d: %v, ballast %d, %d snapshots asked for; want %v, %d, %d", others, got, f.ballast.size(), f.cleared, level, ballast, cleared)
		}
	}
	look(0, diskOK, 300, 0)
	look(8800, diskLow, 300, 1)
	look(9300, diskFull, 0, 2) // 400 free
	look(9300, diskFull, 0, 2) // 700 free, and 300 of them are not for everybody
	look(9160, diskFull, 0, 2)
	look(9000, diskLow, 0, 3) // 1000 free
	look(8610, diskLow, 0, 3)
	look(8590, diskOK, 300, 3)
	f.reserve, f.need = 8000, func() uint64 { return 100 }
	look(6000, diskFull, 300, 4) // much is free, for a snapshot
}

// What was purged is on the disk until some snapshots later, and while publishes are
// refused nobody writes what would have one taken.
func TestDisk_Low_HasSnapshotsTaken(t *testing.T) {
	f := newFakeDisk()
	looks := func(n int) {
		t.Helper()
		for range n {
			if err := f.look(); err != nil {
				t.Fatal(err)
			}
		}
	}
	looks(1)
	if f.cleared+f.stirred > 0 {
		t.Error("a snapshot while there is room")
	}
	f.freeNow = 900
	looks(3 * diskLowClearLooks)
	if f.cleared != 3 || f.stirred != 3 {
		t.Errorf("%d snapshots were asked for and %d entries, want 3 of each", f.cleared, f.stirred)
	}
	looks(37 * diskLowClearLooks) // up to the 40th: the 4th, 8th, 16th, 20th and 32nd
	if f.cleared != 8 || f.stirred != 8 {
		t.Errorf("%d snapshots were asked for and %d entries in 20 minutes, want 8 of each", f.cleared, f.stirred)
	}
	// It is another node's: the entries that its snapshots need are the leader's.
	f.freeNow, f.other = 10_000, diskOK
	looks(1)
	f.other = diskLow
	looks(2 * diskLowClearLooks)
	if f.cleared != 8 || f.stirred != 10 {
		t.Errorf("%d snapshots were asked for and %d entries, want 8 and 10", f.cleared, f.stirred)
	}
}

// How large it is; and a node that is to have none removes what it had.
func TestBallast(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	const total = 100 << 20
	openBallast(dir, 0, log).make(total)
	again := openBallast(dir, 0, log)
	if again.size() != 1<<20 || again.missing(total) != 0 {
		t.Fatalf("the ballast has %d bytes, %d are missing", again.size(), again.missing(total))
	}
	if most := (&ballast{}).missing(1 << 50); most != ballastBytesMax {
		t.Errorf("of a large disk it takes %d", most)
	}
	again.forgo("of a test")
	again.make(total)
	if _, err := os.Stat(again.path); again.size() != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has %d bytes: %v", again.size(), err)
	}
}
