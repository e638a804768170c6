package cluster

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"onceq/fsm"
)

// termRetry is how long the term entry waits before it is proposed again, when
// raft refused it although the node leads.
const termRetry = 50 * time.Millisecond

// leadership follows what raft says about this node's role.
//
// A node that becomes leader proposes a term entry with a nonce of its own, and
// serves clients only when that very entry has been applied here: by then it
// has applied everything its predecessors committed, and the machine has
// detached every consumer. raft's notification alone proves neither.
type leadership struct {
	g      *group
	notify chan bool // from raft, which blocks until it is read

	// inTerm is raft's term of the entry by which this node serves, 0 when it does not.
	inTerm atomic.Uint64

	mu      sync.Mutex // guards the fields below; ordered before everything it calls
	leads   bool
	nonce   fsm.Nonce     // of the term entry that is awaited or applied
	dropped chan struct{} // closed when this leadership ends
}

// notifyBuffer: raft blocks on a full channel. The reader only changes phases,
// so a few places are plenty.
const notifyBuffer = 16

// overAlready is the end of a leadership that there is not.
var overAlready = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func newLeadership(g *group) *leadership {
	return &leadership{g: g, notify: make(chan bool, notifyBuffer)}
}

// over is closed when the present leadership ends; it is closed already when there is
// none.
func (l *leadership) over() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leads {
		return overAlready
	}
	return l.dropped
}

func (l *leadership) serving() bool { return l.servesIn() != 0 }

// servesIn is the term in which this node serves, 0 when it does not.
func (l *leadership) servesIn() uint64 { return l.inTerm.Load() }

// run reads raft's notifications until the group ends. It must never wait for
// raft, which may be waiting for it.
func (l *leadership) run(end <-chan struct{}, spawn func(func())) {
	for {
		select {
		case leads := <-l.notify:
			if leads {
				l.gained(spawn)
			} else {
				l.lost()
			}
		case <-end:
			l.lost()
			return
		}
	}
}

func (l *leadership) gained(spawn func(func())) {
	l.lost()
	l.mu.Lock()
	l.leads = true
	rand.Read(l.nonce[:])
	nonce := l.nonce
	dropped := make(chan struct{})
	l.dropped = dropped
	l.g.proposer.setPhase(preparing)
	l.mu.Unlock()
	l.g.log.Info("leading: waiting for the first entry of the term")
	spawn(func() { l.proposeTerm(nonce, dropped) })
}

// proposeTerm proposes the term entry until it is in the log or the leadership
// is over. It goes to raft directly: nothing else is proposed before it, and
// it carries no stamp, since there is no time to stamp with yet.
func (l *leadership) proposeTerm(nonce fsm.Nonce, dropped <-chan struct{}) {
	for {
		var term fsm.Commands
		term.Add(fsm.KindTerm, fsm.TermPayload(l.g.node, nonce, l.g.life.founded))
		f := l.g.raft.Apply(fsm.NewEntry(l.g.proposer.nextNumber(), 0, l.g.wall().UnixNano(), &term), proposeTimeout)
		err := bound(f, l.g.ended).Error()
		if err == nil {
			return
		}
		l.g.log.Debug("propose term entry", "error", err)
		timer := time.NewTimer(termRetry)
		select {
		case <-timer.C:
		case <-dropped:
			timer.Stop()
			return
		case <-l.g.ended:
			timer.Stop()
			return
		}
	}
}

// termApplied is told of every term entry, ours or another's. Called by the
// goroutine that applies.
func (l *leadership) termApplied(entry *raft.Log, eff *fsm.Effects) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ours := l.leads && eff.Term.Nonce == l.nonce
	if !ours {
		if l.serving() {
			// Another leader's entry is committed: ours is over, whether raft
			// has said so yet or not.
			l.end()
		}
		return
	}
	if l.serving() {
		return // the entry was proposed twice
	}
	l.g.clock.start(eff.Now)
	l.g.ticker.start(eff.Now)
	l.g.hub.start()
	l.g.receives.start()
	l.inTerm.Store(entry.Term)
	l.g.proposer.setPhase(serving)
	l.g.log.Info("leading: serving clients", "index", entry.Index, "term", entry.Term)
	l.g.topology.poke()
	l.g.steward.poke()
}

// lost ends the leadership, if there is one.
func (l *leadership) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leads {
		return
	}
	l.end()
	l.g.log.Info("not leading any more")
}

// end is called with mu held. The order matters: first nothing is handed out,
// then nothing is proposed.
func (l *leadership) end() {
	l.leads = false
	l.nonce = fsm.Nonce{}
	close(l.dropped)
	l.inTerm.Store(0)
	l.g.hub.reset()
	l.g.ticker.stop()
	l.g.clock.stop()
	l.g.proposer.setPhase(following)
	l.g.receives.reset()
	l.g.topology.poke()
}
