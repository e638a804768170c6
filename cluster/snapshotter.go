package cluster

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

const (
	// entryCost is added to an entry's bytes: what replaying it costs beside
	// them.
	entryCost = 1 << 10
	// trailingLogsMin is the least that stays in the log behind a snapshot; with
	// less a follower that is ahead could be sent one. raftlog.CheckConfig asks
	// for as much.
	trailingLogsMin = 4 * maxAppendEntries * (rpcsInFlight + 1)
)

// snapshotter takes a snapshot when the log has grown by enough bytes since the
// last. raft counts entries only, and an entry is anything from a tick to
// megabytes: a thousand of them may be a gigabyte to keep and to replay.
//
// A snapshot holds everything, the backlog's bodies too. So that writing it
// stays a constant share of what is written, the log may grow by as much as the
// newest snapshot is large.
type snapshotter struct {
	bytesMax uint64
	due      chan struct{} // cap 1
	raft     atomic.Pointer[raft.Raft]

	mu      sync.Mutex            // guards the fields below
	base    raft.ReloadableConfig // as configured
	bytes   uint64                // applied since the newest snapshot was frozen
	entries uint64
	average uint64 // of an entry before that
	size    uint64 // of the newest snapshot
}

func newSnapshotter(bytesMax uint64) *snapshotter {
	return &snapshotter{bytesMax: bytesMax, due: make(chan struct{}, 1)}
}

// start is called when raft runs.
func (s *snapshotter) start(r *raft.Raft) {
	s.mu.Lock()
	s.base = r.ReloadableConfig()
	s.mu.Unlock()
	s.raft.Store(r)
}

// applied counts an entry. Called by the goroutine that applies.
func (s *snapshotter) applied(bytes int) {
	s.mu.Lock()
	s.bytes += uint64(bytes) + entryCost
	s.entries++
	due := s.bytes >= max(s.bytesMax, s.size)
	s.mu.Unlock()
	if due {
		select {
		case s.due <- struct{}{}:
		default:
		}
	}
}

// frozen begins to count anew: a snapshot of all that was applied is being
// taken, or was installed.
func (s *snapshotter) frozen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries > 0 {
		s.average = s.bytes / s.entries
	}
	s.bytes, s.entries = 0, 0
}

// persisted learns how large a snapshot is, before raft cuts the log behind it.
func (s *snapshotter) persisted(size int64) {
	s.mu.Lock()
	s.size = uint64(size)
	c := s.base
	c.TrailingLogs, c.SnapshotThreshold = s.plan()
	s.mu.Unlock()
	r := s.raft.Load()
	if r == nil {
		return
	}
	// What is refused here was valid at the start; the old values go on.
	_ = r.ReloadConfig(c)
}

// plan returns how many entries stay in the log for followers that are behind,
// and after how many raft takes a snapshot of its own. Called with mu held.
func (s *snapshotter) plan() (trailing, threshold uint64) {
	average := max(s.average, entryCost)
	trailing = min(s.base.TrailingLogs, max(trailingLogsMin, s.bytesMax/2/average))
	threshold = max(s.base.SnapshotThreshold, s.size/average)
	return trailing, threshold
}

// run takes the snapshots that are due.
func (s *snapshotter) run(g *group, end <-chan struct{}) {
	for {
		select {
		case <-s.due:
		case <-end:
			return
		}
		s.mu.Lock()
		due := s.bytes >= max(s.bytesMax, s.size)
		s.mu.Unlock()
		if !due {
			continue // taken meanwhile
		}
		if err := bound(g.raft.Snapshot(), g.ended).Error(); err != nil {
			g.log.Warn("snapshot of a log that has grown", "error", err)
		}
	}
}
