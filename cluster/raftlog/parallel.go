package raftlog

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// parallelBytesMax bounds what raft may take for stored while it is on its way to the disk. It is half of recentBytesMax, so that
// all of it is in memory for followers.
const parallelBytesMax = recentBytesMax / 2

// parallel writes this node's own commands to the disk while raft sends them to the followers, in place of before (Ongaro's thesis,
// 10.2.1): a commit then takes the slower of two fsyncs and not their sum, and not that of the leader at all when the others are a majority
// without it. raft v1.7.3 stores, counts itself, and sends, in this order (dispatchLogs); here StoreLogs returns before the entries are
// durable, so that raft counts this node too early. What it concludes from that may be lost with this process and nothing else, since as long
// as it lives nobody is elected without its vote or that of the followers that have the entry. So nothing of it may leave the process before
// the entry is on a majority of disks: this one counts when it has the entry, and the others by what they have answered in this term.
//
//   - Apply waits (Committed), and with it each answer to a client;
//   - the commit index is held back in what goes to followers (Guard), which would apply;
//   - a new term waits for the disk (SetUint64), and with it each vote of this node, each vote for it, and each answer to the entries of
//     another leader: who leads a term has no other office in it, so that nobody but a leader has anything on its way;
//   - configurations wait, and what raft begins a term with: these it acts on without Apply. No entry is on its way while the voters change;
//   - what deletes entries waits for them.
//
// The entries are in recent as long as they are here. They are written in their order, together when several have gathered.
type parallel struct {
	store *Store
	ended chan struct{}
	err   error // why run has returned, read behind ended

	mu      sync.Mutex  // guards below
	changed *sync.Cond  // something was written, came, has failed, or the end has come
	logs    []*raft.Log // of one term
	bytes   int
	term    uint64                   // of the newest answer of a follower
	matched map[raft.ServerID]uint64 // what followers have answered in it: their logs are equal to this node's up to here
	others  uint64                   // a majority without this node is, up to here
	closing bool
	over    bool // run has returned: what is left will not be written
}

func startParallel(s *Store) *parallel {
	p := &parallel{store: s, ended: make(chan struct{}), matched: make(map[raft.ServerID]uint64)}
	p.changed = sync.NewCond(&p.mu)
	go p.run()
	return p
}

// takes tells whether the entries may be on their way while raft goes on: commands of this node's own, which have no checksum yet, and no more
// bytes of them than there may be.
func (p *parallel) takes(logs []*raft.Log) bool {
	return p != nil && bytesOf(logs) <= parallelBytesMax &&
		!slices.ContainsFunc(logs, func(l *raft.Log) bool { return l.Type != raft.LogCommand || len(l.Extensions) != 0 })
}

// bytesOf is what entries take in memory.
func bytesOf(logs []*raft.Log) (n int) {
	for _, l := range logs {
		n += entryBytes(l)
	}
	return n
}

// add takes entries that follow what is here, once there is room.
func (p *parallel) add(logs []*raft.Log) error {
	bytes := bytesOf(logs)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := p.store.writable(); err != nil {
			return err
		}
		if p.closing {
			return ErrClosed // nobody may write it any more
		}
		if p.bytes+bytes <= parallelBytesMax {
			break
		}
		p.changed.Wait()
	}
	// Before they can be written, and so before anybody may delete them.
	p.store.recent.put(logs)
	p.logs = append(p.logs, logs...)
	p.bytes += bytes
	p.changed.Broadcast()
	return nil
}

// wait returns when nothing up to index is on its way, or never will be: then with the error. A nil receiver has nothing.
func (p *parallel) wait(index uint64) error {
	return p.waitWhile(func() bool { return len(p.logs) > 0 && p.logs[0].Index <= index })
}

// waitCommitted is wait for an entry that raft has committed: the others may do without this disk.
func (p *parallel) waitCommitted(index uint64) error {
	return p.waitWhile(func() bool { return len(p.logs) > 0 && p.logs[0].Index <= index && p.withoutUs() < index })
}

// withoutUs is up to where the others have what is on its way here. Called with mu held.
func (p *parallel) withoutUs() uint64 {
	if p.term != p.logs[0].Term {
		return 0
	}
	return p.others
}

func (p *parallel) waitWhile(onItsWay func() bool) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for onItsWay() {
		if err := p.store.Failed(); err != nil {
			return fmt.Errorf("%w: %w", ErrFailed, err)
		}
		if p.over {
			return ErrClosed
		}
		p.changed.Wait()
	}
	return nil
}

// bounds are the first and the last index on their way, 0 for none.
func (p *parallel) bounds() (first, last uint64) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.logs) == 0 {
		return 0, 0
	}
	return p.logs[0].Index, p.logs[len(p.logs)-1].Index
}

// follows notes that a follower has answered, in this term of this node's, that its log is equal up to index. Within a term it does not become
// shorter.
func (p *parallel) follows(id raft.ServerID, term, index uint64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if term > p.term {
		clear(p.matched)
		p.term, p.others = term, 0
	}
	if term < p.term || index <= p.matched[id] {
		return
	}
	p.matched[id] = index
	// Under mu: whoever has answered for an entry behind a change of the voters was sent it after that change.
	voters := p.store.voters()
	have := make([]uint64, 0, len(voters))
	for _, v := range voters {
		if string(v.ID) != p.store.owner {
			have = append(have, p.matched[v.ID])
		}
	}
	if quorum := len(voters)/2 + 1; len(have) >= quorum {
		slices.Sort(have)
		if most := have[len(have)-quorum]; most > p.others {
			p.others = most
			p.changed.Broadcast()
		}
	}
}

// wake has everybody look again: the Store has failed.
func (p *parallel) wake() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
}

// close returns when everything is written, or with the error over which nothing is any more.
func (p *parallel) close() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	p.closing = true
	p.changed.Broadcast()
	p.mu.Unlock()
	<-p.ended
	return p.err // run has returned
}

func (p *parallel) run() {
	defer close(p.ended)
	for {
		logs := p.next()
		if logs == nil {
			break
		}
		if p.err = p.store.append(logs); p.err != nil {
			break
		}
		p.written(len(logs))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.changed.Broadcast()
}

// next waits for entries, and returns all that there are: nil when none will come, or none may be written any more.
func (p *parallel) next() []*raft.Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.store.Failed() != nil:
			return nil
		case len(p.logs) > 0:
			return p.logs
		case p.closing:
			return nil
		}
		p.changed.Wait()
	}
}

// written takes the first n out.
func (p *parallel) written(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= bytesOf(p.logs[:n])
	clear(p.logs[:n]) // next's slice ends with this
	p.logs = p.logs[n:]
	p.changed.Broadcast()
}

// append writes entries that follow the log, and returns when they are durable.
func (s *Store) append(logs []*raft.Log) error {
	bytes := 0
	for _, l := range logs {
		bytes += len(l.Data)
	}
	done, began := s.watch.begin("append", bytes), time.Now()
	err := s.log.StoreLogs(logs)
	s.appends.note(time.Since(began))
	done()
	if err != nil {
		return s.fail(fmt.Errorf("append %d to %d to %s: %w", logs[0].Index, logs[len(logs)-1].Index, s.where(), err))
	}
	s.acknowledged(logs[len(logs)-1])
	return nil
}

// Committed returns when it is true of an entry that raft calls committed. With Options.Parallel Apply owes it to everybody to ask first. An
// error says that it never will be: the Store has failed.
func (s *Store) Committed(index uint64) error { return s.parallel.waitCommitted(index) }

// HeldBack is a commit index of raft as it may leave this node.
func (s *Store) HeldBack(commit uint64) uint64 {
	p := s.parallel
	if p == nil {
		return commit
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.logs) == 0 {
		return commit
	}
	return min(commit, max(p.logs[0].Index-1, p.withoutUs()))
}

// SetVoters says who votes, as raft knows it. Before it is called nobody does, and each commit waits for the disk here. voters must not wait
// for anything.
func (s *Store) SetVoters(voters func() []raft.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.voting = voters
}

func (s *Store) voters() []raft.Server {
	s.mu.Lock()
	voting := s.voting
	s.mu.Unlock()
	if voting == nil {
		return nil
	}
	return voting()
}
