package cluster

import (
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"
)

// followedEntries: a follower that lacks no more has caught up. So many are in
// flight to it.
const followedEntries = maxAppendEntries * (rpcsInFlight + 1)

// catchUps knows, at the leader, the followers that were sent a snapshot and have
// not caught up since. What came behind the snapshot they take from the log, where
// the next snapshots must leave it for them: else they need another one, and as long
// as messages are published that is so again and again. A node that begins to lead
// knows of none, and may have to send one of its own.
type catchUps struct {
	log *slog.Logger

	mu sync.Mutex // guards at
	at map[raft.ServerID]uint64
}

func newCatchUps(log *slog.Logger) *catchUps {
	return &catchUps{log: log, at: make(map[raft.ServerID]uint64)}
}

// sent notes that a snapshot is on its way to a follower.
func (c *catchUps) sent(peer raft.ServerID, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[peer] = index
}

// brokeOff notes that it did not arrive: the follower, which may be down, is sent the
// newest one next.
func (c *catchUps) brokeOff(peer raft.ServerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.at, peer)
}

// follows notes how far a follower is, in a log that reaches last.
func (c *catchUps) follows(peer raft.ServerID, index, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[peer]; !ok {
		return
	}
	if index+followedEntries >= last {
		delete(c.at, peer)
		return
	}
	c.at[peer] = index
}

// lowest returns the least that any of them has. Those that lack an entry before
// first are given up: another snapshot is the only way for them.
func (c *catchUps) lowest(first uint64) (index uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for peer, at := range c.at {
		switch {
		case at+1 < first:
			delete(c.at, peer)
			c.log.Warn("the log cannot keep what a follower lacks behind the snapshot that it was sent, and it needs another one: more was published meanwhile than half of --log-bytes",
				"peer", peer, "has", at, "log_begins", first)
		case !ok || at < index:
			index, ok = at, true
		}
	}
	return index, ok
}

// reset forgets all: this node does not lead.
func (c *catchUps) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.at)
}
