package cluster

import (
	"cmp"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"onceq/fsm"
	"onceq/fsm/storage"
)

func newTestSnapshotter(logBytes uint64) *snapshotter {
	s := newSnapshotter(logBytes, 16_384, time.Hour, nil, slog.New(slog.DiscardHandler))
	s.base = raft.ReloadableConfig{TrailingLogs: 4096}
	return s
}

func (s *snapshotter) wasDue() bool {
	select {
	case <-s.due:
		return true
	default:
		return false
	}
}

func TestSnapshotter_IsDueByBytesAndInProportionToItsSize(t *testing.T) {
	s := newTestSnapshotter(256 << 20)
	const entry = 1<<20 - entryCost
	index := uint64(0)
	apply := func(n, bytes int) {
		for range n {
			index++
			s.applied(index, bytes)
		}
	}
	if apply(31, entry); s.wasDue() {
		t.Fatal("due before the log has grown enough")
	}
	if apply(1, entry); !s.wasDue() {
		t.Fatal("not due after 32 MiB")
	}
	s.frozen(true, time.Millisecond)
	if s.persisted(1<<30, index); s.size != 1<<30 {
		t.Fatal("the size is not known")
	}
	if apply(1023, entry); s.wasDue() {
		t.Fatal("due although the newest snapshot is larger than the log after it")
	}
	if apply(1, entry); !s.wasDue() {
		t.Fatal("not due")
	}
}

// TestSnapshotter_Pace: the disk is the log's for three times as long as a piece
// took, but not when somebody waits for the snapshot, nor when the next is due soon.
func TestSnapshotter_Pace(t *testing.T) {
	t.Parallel()
	const took = 10 * time.Millisecond
	for name, c := range map[string]struct {
		before, after func(s *snapshotter) // the freeze
		took          time.Duration        // 0: took
		want          time.Duration
	}{
		"nothing else to do":    {want: writePauses * took},
		"the disk is slow":      {took: time.Second, want: writePauseMax},
		"asked for":             {before: (*snapshotter).ask},
		"somebody waits":        {after: func(s *snapshotter) { s.wait(1) }},
		"somebody waited":       {after: func(s *snapshotter) { s.wait(1); s.wait(-1) }, want: writePauses * took},
		"another is asked for":  {after: (*snapshotter).ask},
		"the log has grown":     {after: func(s *snapshotter) { s.applied(9, 16<<20) }},
		"the log grows slowly":  {after: func(s *snapshotter) { s.applied(9, 15<<20) }, want: writePauses * took},
		"it grew before":        {before: func(s *snapshotter) { s.applied(9, 100<<20) }, want: writePauses * took},
		"a large one before it": {before: func(s *snapshotter) { s.size = 64 << 20 }, after: func(s *snapshotter) { s.applied(9, 16<<20) }, want: writePauses * took},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newTestSnapshotter(256 << 20)
				if c.before != nil {
					c.before(s)
				}
				s.frozen(true, 0)
				if c.after != nil {
					c.after(s)
				}
				began := time.Now()
				s.pace(cmp.Or(c.took, took))
				if d := time.Since(began); d != c.want {
					t.Errorf("the next piece waits for %v, want %v", d, c.want)
				}
			})
		})
	}
}

// A node that ends does not wait for the pauses of a snapshot.
func TestSnapshotter_Pace_EndsWithTheNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestSnapshotter(256 << 20)
		end := make(chan struct{})
		s.end = end
		s.frozen(true, 0)
		time.AfterFunc(time.Millisecond, func() { close(end) })
		began := time.Now()
		if s.pace(time.Hour); time.Since(began) != time.Millisecond {
			t.Errorf("the pause ended after %v, the node after a millisecond", time.Since(began))
		}
	})
}

// TestSnapshotter_TellsTheLongestStall: a piece that is copied before a freeze holds up
// what is applied like the freeze itself.
func TestSnapshotter_TellsTheLongestStall(t *testing.T) {
	t.Parallel()
	s := newSnapshotter(1<<20, 1<<30, time.Hour, nil, slog.New(slog.DiscardHandler))
	for _, c := range []struct{ piece, freeze, last, most time.Duration }{
		{3, 7, 7, 7}, {5, 2, 5, 7}, {0, 1, 1, 7}, {9, 1, 9, 9},
	} {
		s.held(c.piece)
		s.held(c.piece / 2)
		s.frozen(true, c.freeze)
		if last, most := s.stalls(); last != c.last || most != c.most {
			t.Errorf("after a piece of %d and a freeze of %d the last stall is %d, the longest %d, want %d and %d", c.piece, c.freeze, last, most, c.last, c.most)
		}
	}
}

// A piece that is copied before the freeze counts like the freeze.
func TestSnapshotter_TellsOfPiecesBeforeTheFreeze(t *testing.T) {
	s := newTestSnapshotter(1 << 20)
	g := &group{machine: fsm.New(fsm.Config{}, storage.NewMemory())}
	g.machine.BeginCopy()
	s.copyAhead(g)
	s.frozen(true, 0)
	if last, _ := s.stalls(); last == 0 {
		t.Error("nobody hears how long a piece took")
	}
}

// Whatever the mix of entries, what stays behind a snapshot has its part of the
// bytes, and never less than what followers need that are ahead.
func TestSnapshotter_TrailingEntriesFitTheirBytes(t *testing.T) {
	for name, c := range map[string]struct {
		entries func(i int) int
		want    func(trailing uint64) bool
	}{
		"ticks":              {func(int) int { return 40 }, func(n uint64) bool { return n == 4096 }},
		"a megabyte each":    {func(int) int { return 1 << 20 }, func(n uint64) bool { return n == trailingLogsMin }},
		"a hundred KiB each": {func(int) int { return 100 << 10 }, func(n uint64) bool { return n > 600 && n <= 656 }},
		"ticks, and then large ones": {func(i int) int {
			if i < 9000 {
				return 40
			}
			return 512 << 10
		}, func(n uint64) bool { return n > 120 && n <= 128 }},
		"large ones, and then ticks": {func(i int) int {
			if i < 9000 {
				return 512 << 10
			}
			return 40
		}, func(n uint64) bool { return n > 1100 && n <= 1128 }},
	} {
		s := newTestSnapshotter(256 << 20)
		for i := range 10_000 {
			s.applied(uint64(i+1), c.entries(i))
		}
		if n := s.trailing(10_000, 10_000); !c.want(n) {
			t.Errorf("%s: %d entries stay", name, n)
		}
		if len(s.marks) > 2*logMarks {
			t.Errorf("%s: %d marks", name, len(s.marks))
		}
	}
}

// Publishes wait only for a snapshot that is being written.
func TestSnapshotter_IsBehindWhileItsSnapshotIsWritten(t *testing.T) {
	s := newTestSnapshotter(256 << 20)
	for i := range uint64(100) {
		s.applied(i+1, 1<<20)
	}
	if s.behind() {
		t.Error("behind without a snapshot")
	}
	s.frozen(true, 0)
	for i := range uint64(63) {
		if s.applied(101+i, 1<<20); s.behind() {
			t.Fatalf("behind after %d MiB", i+1)
		}
	}
	if s.applied(200, 1<<20); !s.behind() {
		t.Error("the log grows without end while its snapshot is written")
	}
	s.frozen(false, 0)
	if s.behind() {
		t.Error("behind after an install")
	}
}

// annexSink is a snapshot that can be given files.
type annexSink struct {
	raft.SnapshotSink
	path string
}

func (k annexSink) AnnexPath() string { return k.path }
func (k annexSink) Cancel() error     { return nil }

// TestPersist_BodiesCannotBeWritten_EndsTheNode: raft logs what Persist returns and goes
// on, and the log would grow without end. A snapshot that was overtaken by another is no
// such failure.
func TestPersist_BodiesCannotBeWritten_EndsTheNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "no-directory")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bodies, err := storage.OpenPebble(storage.Options{Dir: filepath.Join(dir, "bodies"), Fatal: func(err error) { t.Error(err) }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer bodies.Close()
	var fatal error
	g := &group{machine: fsm.New(fsm.Config{Group: groupNumber}, bodies), fatal: func(err error) { fatal = err }}
	persist := func(meanwhile func()) error {
		frozen, err := g.machine.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer frozen.Release()
		meanwhile()
		return (&snapshot{s: frozen, g: g}).Persist(annexSink{path: filepath.Join(file, "annex")})
	}
	if err := persist(bodies.Reset); !errors.Is(err, storage.ErrReplaced) || fatal != nil {
		t.Errorf("of bodies that were replaced: %v, and the node ends over %v", err, fatal)
	}
	if err := persist(func() {}); err == nil || fatal == nil {
		t.Errorf("where nothing can be written: %v, and the node ends over %v", err, fatal)
	}
}

// catchUp is a log of a MiB an entry, in which a follower was sent the snapshot at
// index 1000; half of LogBytes are 128 such entries.
func catchUp(t *testing.T) (s *snapshotter, publish func(n int), kept func() uint64) {
	t.Helper()
	s = newTestSnapshotter(256 << 20)
	last := uint64(0)
	publish = func(n int) {
		for range n {
			last++
			s.applied(last, 1<<20-storedCost)
		}
	}
	// As the library cuts it: what is kept begins there.
	kept = func() uint64 { return last + 1 - s.trailing(last, last) }
	publish(1000)
	s.catchUps.sent("n3", last)
	return s, publish, kept
}

// What a follower lacks behind the snapshot that it was sent stays, however many
// snapshots are taken meanwhile, until it has it.
func TestSnapshotter_KeepsWhatAFollowerLacksBehindItsSnapshot(t *testing.T) {
	t.Parallel()
	s, publish, kept := catchUp(t)
	for range 5 {
		publish(25)
		if first := kept(); first > 1000 {
			t.Fatalf("the log begins with %d, and the follower needs what follows 1000, and the term of that", first)
		}
	}
	s.catchUps.sent("n2", 1060)
	s.catchUps.follows("n3", 1050, 1125)
	publish(50) // 1000 would not fit any more
	if first := kept(); first > 1050 || first <= 1000 {
		t.Errorf("the log begins with %d, and the followers have 1050 and 1060", first)
	}
	s.catchUps.follows("n3", 1175-followedEntries, 1175)
	if first := kept(); first > 1060 || first < 1048 {
		t.Errorf("the log begins with %d, and the one follower that has not caught up has 1060", first)
	}
	s.catchUps.follows("n2", 1175, 1175)
	if first := kept(); first != 1175+1-trailingLogsMin {
		t.Errorf("the log begins with %d when everybody has caught up", first)
	}
	s.catchUps.follows("n2", 1000, 1175) // it is no more behind for having been asked
	if first := kept(); first != 1175+1-trailingLogsMin {
		t.Errorf("the log begins with %d for a follower that needs no snapshot", first)
	}
}

// A follower that lacks more than half of LogBytes is given up, and told of; the log
// does not grow for it any further.
func TestSnapshotter_GivesUpWhoLacksMoreThanItsPart(t *testing.T) {
	t.Parallel()
	s, publish, kept := catchUp(t)
	var told strings.Builder
	s.catchUps.log = slog.New(slog.NewTextHandler(&told, nil))
	publish(128)
	if first := kept(); first != 1000 || told.Len() > 0 {
		t.Errorf("the log begins with %d although what the follower lacks has room: %s", first, &told)
	}
	publish(1)
	if first := kept(); first != 1129+1-trailingLogsMin {
		t.Errorf("the log begins with %d, for a follower that it cannot help", first)
	}
	if !strings.Contains(told.String(), "peer=n3 has=1000") {
		t.Errorf("it was told %q", &told)
	}
	if len(s.catchUps.at) > 0 {
		t.Error("it is not given up")
	}
	s.catchUps.sent("n3", 1129)
	publish(100)
	if first := kept(); first > 1129 {
		t.Errorf("the log begins with %d after another snapshot at 1129", first)
	}
	s.catchUps.brokeOff("n3")
	if first := kept(); first != 1229+1-trailingLogsMin {
		t.Errorf("the log begins with %d for a follower that is down", first)
	}
}

// After a restart the newest snapshot is what is sent, and nothing is known of the
// entries before it.
func TestSnapshotter_KeepsWhatIsLackedAfterARestart(t *testing.T) {
	t.Parallel()
	s := newTestSnapshotter(256 << 20)
	for i := range uint64(120) {
		s.applied(501+i, 1<<20)
	}
	s.catchUps.sent("n3", 500)
	if first := 620 + 1 - s.trailing(620, 620); first != 500 {
		t.Errorf("the log begins with %d", first)
	}
}
