package cluster

import (
	"log/slog"
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"onceq/fsm"
)

const (
	// entryCost is added to an entry's bytes: what replaying it costs beside
	// them.
	entryCost = 1 << 10
	// trailingLogsMin is the least that stays in the log behind a snapshot; with
	// less a follower that is ahead could be sent one. raftlog.CheckConfig asks
	// for as much.
	trailingLogsMin = 4 * followedEntries

	// The parts of Config.LogBytes: what the log grows by before a snapshot is
	// taken, and a start replays; what stays behind it, usually and for followers
	// that were sent a snapshot; and what it may grow by while the snapshot is being
	// written before publishes have to wait. The rest is for the log store's
	// segments, which are freed whole.
	logGrowthPart, logTrailingPart, logCatchUpPart, logWritingPart = 8, 4, 2, 4
	// storedCost is what the log stores take for an entry beside its bytes.
	storedCost = 128
	// logSegments is in how many segments a log of LogBytes is, of at least
	// logSegmentMin bytes.
	logSegments, logSegmentMin = 32, 1 << 20
	// LogBytesMin is the least of Config.LogBytes: two of the smallest segments.
	LogBytesMin = 2 * logSegmentMin
	// logMarks is how finely sizes of entries are remembered.
	logMarks = 1024

	// copyBytes of tables are copied at once before a freeze; Apply waits for no
	// more.
	copyBytes = 64 << 10
	// copyLeft rows that have changed since they were copied may be left for the
	// freeze, and copyRounds bounds the tries to have no more.
	copyLeft, copyRounds = 64, 100

	// writePauses is how many times as long as a piece of a snapshot's bodies took to
	// write the disk is left to the log. Without pauses each fsync of the log took
	// tens of milliseconds while a snapshot was being written, and the processor had
	// nothing to do. A disk that is slow by itself has pauses of writePauseMax.
	writePauses   = 3
	writePauseMax = 100 * time.Millisecond
)

// snapshotter takes a snapshot when the log has grown by enough bytes since the
// last, or, looked at now and then, by enough entries. It is the only one who
// does: before the freeze the tables are copied, a piece at a time, so that Apply
// is not held up.
//
// With bodies in memory a snapshot holds all of them. So that writing it stays a
// constant share of what is written, the log may grow by as much as the newest
// snapshot is large.
type snapshotter struct {
	logBytes  uint64
	threshold uint64 // entries
	interval  time.Duration
	due       chan struct{} // cap 1
	raft      atomic.Pointer[raft.Raft]
	taking    chan struct{} // a token: one snapshot at a time
	catchUps  *catchUps
	end       <-chan struct{} // the node ends

	mu       sync.Mutex            // guards the fields below
	base     raft.ReloadableConfig // as configured
	bytes    uint64                // applied since the newest snapshot was frozen
	entries  uint64
	average  uint64 // of an entry before that
	size     uint64 // of the newest snapshot
	total    uint64 // bytes applied in all, as they are stored
	marks    []logMark
	writing  bool          // a snapshot was frozen and is not written yet
	asked    bool          // for one as soon as there is anything new
	hurried  bool          // the one that is being written was asked for
	waiting  int           // for one, in take
	piece    time.Duration // the longest that Apply may have waited for since the last freeze
	stall    time.Duration
	stallMax time.Duration
	taken    uint64 // since the start
	received uint64 // of a leader, since the start
}

// logMark: up to index, so many bytes were applied in all.
type logMark struct{ index, total uint64 }

func newSnapshotter(logBytes, threshold uint64, interval time.Duration, end <-chan struct{}, log *slog.Logger) *snapshotter {
	return &snapshotter{logBytes: logBytes, threshold: threshold, interval: interval, due: make(chan struct{}, 1), taking: make(chan struct{}, 1),
		catchUps: newCatchUps(log), end: end}
}

// start is called when raft runs.
func (s *snapshotter) start(r *raft.Raft) {
	s.mu.Lock()
	s.base = r.ReloadableConfig()
	s.mu.Unlock()
	s.raft.Store(r)
}

// applied counts an entry. Called by the goroutine that applies.
func (s *snapshotter) applied(index uint64, bytes int) {
	s.mu.Lock()
	s.bytes += uint64(bytes) + entryCost
	s.entries++
	s.mark(index, uint64(bytes)+storedCost)
	due := s.bytes >= s.growth()
	s.mu.Unlock()
	if due {
		s.poke()
	}
}

// ask has a snapshot taken now, if anything was applied since the last.
func (s *snapshotter) ask() {
	s.mu.Lock()
	s.asked = true
	s.mu.Unlock()
	s.poke()
}

func (s *snapshotter) poke() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// growth is what the log may grow by. Called with mu held.
func (s *snapshotter) growth() uint64 { return max(s.logBytes/logGrowthPart, s.size) }

// mark remembers how large the entries are that may stay. Called with mu held.
func (s *snapshotter) mark(index, bytes uint64) {
	s.total += bytes
	if n := len(s.marks); n > 0 && s.total-s.marks[n-1].total < s.logBytes/logMarks {
		return
	}
	s.marks = append(s.marks, logMark{index, s.total})
	if old := len(s.marks) - logMarks; old >= logMarks {
		s.marks = append(s.marks[:0], s.marks[old:]...)
	}
}

// frozen begins to count anew: a snapshot of all that was applied is being
// taken, or was installed.
func (s *snapshotter) frozen(writing bool, stall time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries > 0 {
		s.average = s.bytes / s.entries
	}
	s.bytes, s.entries = 0, 0
	s.writing, s.hurried, s.asked = writing, s.asked, false
	s.stall, s.piece = max(s.piece, stall), 0
	s.stallMax = max(s.stallMax, s.stall)
}

// held notes how long Apply may have waited for a piece before the freeze.
func (s *snapshotter) held(piece time.Duration) {
	s.mu.Lock()
	s.piece = max(s.piece, piece)
	s.mu.Unlock()
}

// pace returns when the next piece of a snapshot's bodies may be written: after a
// pause, unless somebody waits for the snapshot, or the log has grown so much since
// it was frozen that the next will soon be due.
func (s *snapshotter) pace(took time.Duration) {
	s.mu.Lock()
	hurry := s.hurried || s.asked || s.waiting > 0 || s.bytes >= s.growth()/2
	s.mu.Unlock()
	if hurry {
		return
	}
	select {
	case <-time.After(min(writePauses*took, writePauseMax)):
	case <-s.end:
	}
}

// persisted learns how large a snapshot is, before raft cuts the log behind it.
func (s *snapshotter) persisted(size int64, applied uint64) {
	r := s.raft.Load()
	last := applied
	if r != nil {
		last = max(last, r.LastIndex())
		if r.State() != raft.Leader {
			s.catchUps.reset()
		}
	}
	s.mu.Lock()
	s.taken++
	s.size = uint64(size)
	c := s.base
	c.TrailingLogs = s.trailing(applied, last)
	s.mu.Unlock()
	if r == nil {
		return
	}
	// What is refused here was valid at the start; the old values go on.
	_ = r.ReloadConfig(c)
}

// trailing returns how many entries stay in a log that reaches last. For followers
// that are a little behind that is as many as were asked for, and no more bytes than
// their part. For those that were sent a snapshot it is what they lack, if that is
// within the part for them, and a little more, since the log goes on meanwhile.
// Called with mu held.
func (s *snapshotter) trailing(applied, last uint64) uint64 {
	fit := applied + 1 - s.from(applied, s.logBytes/logTrailingPart)
	n := min(s.base.TrailingLogs, max(trailingLogsMin, fit))
	first := s.from(applied, s.logBytes/logCatchUpPart)
	has, ok := s.catchUps.lowest(min(first, last-min(n, last)+1))
	if !ok {
		return n
	}
	// The entry before those that it lacks goes with them: raft compares its term.
	return max(n, last+1-min(has, max(first, has-min(has, trailingLogsMin))))
}

// from returns the first of the newest entries that fit into room, as far as they
// were applied in this life. Called with mu held.
func (s *snapshotter) from(applied, room uint64) uint64 {
	if len(s.marks) > 0 && s.total <= room {
		return min(s.marks[0].index, applied+1)
	}
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].total+room >= s.total })
	if i == len(s.marks) {
		return applied + 1
	}
	return min(s.marks[i].index, applied) + 1
}

// behind says that the log grows faster than its snapshot is written: publishes
// wait until it is.
func (s *snapshotter) behind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writing && s.bytes >= max(s.logBytes/logWritingPart, s.size)
}

// stalls are how long Apply has waited at once for the newest snapshot - at its
// freeze, or for a piece that was copied before it - and at most for any.
func (s *snapshotter) stalls() (last, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stall, s.stallMax
}

// installed counts a snapshot that a leader has sent.
func (s *snapshotter) installed() {
	s.mu.Lock()
	s.received++
	s.mu.Unlock()
}

// counts are how many snapshots were taken, and received from a leader, since the
// start.
func (s *snapshotter) counts() (taken, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken, s.received
}

// run takes the snapshots that are due.
func (s *snapshotter) run(g *group, end <-chan struct{}) {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		select {
		case <-s.due:
		case <-tick.C:
		case <-end:
			return
		}
		s.mu.Lock()
		entries := max(s.threshold, s.size/max(s.average, entryCost))
		due := s.bytes >= s.growth() || s.entries >= entries || s.asked && s.entries > 0
		s.mu.Unlock()
		if !due {
			continue // taken meanwhile, or not yet
		}
		if err := s.snapshot(g); err != nil {
			g.log.Warn("snapshot of a log that has grown", "error", err)
		}
	}
}

// take takes a snapshot for somebody who waits.
func (s *snapshotter) take(g *group) error {
	s.wait(1)
	defer s.wait(-1)
	return s.snapshot(g)
}

func (s *snapshotter) wait(n int) {
	s.mu.Lock()
	s.waiting += n
	s.mu.Unlock()
}

func (s *snapshotter) snapshot(g *group) error {
	select {
	case s.taking <- struct{}{}:
	case <-g.ended:
		return errEnding
	}
	defer func() { <-s.taking }()
	g.mu.Lock()
	g.machine.BeginCopy()
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.machine.EndCopy() // of a snapshot that came to nothing
	}()
	s.copyAhead(g)
	err := bound(g.raft.Snapshot(), g.ended).Error()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	return err
}

// copyAhead copies the tables between entries, until little is left for the freeze.
func (s *snapshotter) copyAhead(g *group) {
	var room fsm.CopyRoom
	for rounds := 0; rounds < copyRounds && !g.stopped.Load(); {
		room.Make()
		g.mu.RLock()
		began := time.Now()
		left, walked := g.machine.CopySome(copyBytes, &room)
		piece := time.Since(began)
		g.mu.RUnlock()
		s.held(piece)
		if walked && left <= copyLeft {
			return
		}
		if walked {
			rounds++
		}
	}
}

// snapshotThresholdNone: raft takes no snapshot by itself.
const snapshotThresholdNone = math.MaxUint64
