package cluster

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport/wire"
)

// phase is what a node may do with a client's command.
type phase uint8

const (
	// following: refused, the leader is elsewhere.
	following phase = iota
	// preparing: the node leads and has not applied its own first entry.
	// Commands wait in their lanes; nothing is proposed.
	preparing
	// serving: proposed.
	serving
	// draining: what is in flight ends, nothing new is taken.
	draining
	// closed: for good.
	closed
)

// proposals is what the proposer needs of raft.
type proposals interface {
	Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture
}

// proposerConfig wires a proposer.
type proposerConfig struct {
	clock    *clock
	mono     func() time.Duration
	wall     func() int64
	ended    chan struct{} // closed when raft has ended: no future is answered any more
	refusal  func() *wire.ErrorReply
	classify func(err error) raftlog.Outcome
	// hold says that this node's disk is behind with what was stored already:
	// publishes wait in their lane, and are refused when that is full. May be nil.
	hold func() bool
}

// holdPause is how often a publish that is held looks again.
const holdPause = 5 * time.Millisecond

// proposer turns commands into entries and entries into answers. Each lane has
// memory and workers of its own. A worker takes the oldest entry, stamps it,
// hands it to raft and waits until it is applied here or has failed; while
// every worker of the lane waits, commands collect. So batches adapt to the
// load: one command when nothing is in flight, hundreds when the disk is busy.
//
// raft's applyCh stays unbuffered: what cannot be handed over yet can still
// grow here, and each proposal has a definite place, in a lane or in raft.
//
// Each waiter is answered exactly once: by the goroutine that takes its entry
// out of inflight (applied, or failed) or out of a lane (refused).
type proposer struct {
	cfg  proposerConfig
	raft proposals     // set by start
	end  chan struct{} // closed by close
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the fields below; no call-out is made under it
	phase    phase
	lanes    [lanes]*lane
	inflight map[uint64]*proposal // by number
	number   uint64               // of the newest entry
	idle     chan struct{}        // closed when draining and nothing is in flight; nil otherwise
}

// proposal is an entry that was handed to raft, or is being handed.
type proposal struct {
	entry *entry
	lane  *lane
	since time.Duration // monotonic, when it left its lane
}

// laneID says which lane a command takes.
type laneID uint8

const (
	settleLane laneID = iota
	publishLane
	lanes
)

// laneOf keeps what makes room (settles), what keeps leases (attaches) and what
// moves time apart from publishes.
func laneOf(k fsm.Kind) laneID {
	if k == fsm.KindPublish || k == fsm.KindAckPublish || k == fsm.KindRestoreChunk {
		return publishLane
	}
	return settleLane
}

// lane is a queue of entries with memory of its own.
type lane struct {
	name     string
	bytesMax int
	workers  int
	turn     chan struct{} // held by the worker that takes and hands over, so that entries keep their order
	wake     chan struct{} // cap 1: there may be something to take

	// Guarded by proposer.mu.
	queue    []*entry // oldest first; the last is open for more
	bytes    int      // waiting and in flight
	flying   int      // proposals in flight
	tick     bool     // an entry is wanted even without commands
	attaches int      // waiting or in flight
}

func newProposer(cfg proposerConfig) *proposer {
	p := &proposer{
		cfg:      cfg,
		end:      make(chan struct{}),
		inflight: make(map[uint64]*proposal),
		// Another leader's entries are applied here as well, also while a
		// proposal of ours waits for its future. Numbers that start at random
		// keep them apart.
		number: rand.Uint64(),
	}
	mk := func(name string, bytesMax, workers int) *lane {
		return &lane{name: name, bytesMax: bytesMax, workers: workers,
			turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	}
	p.lanes[settleLane] = mk("settles", settleLaneBytesMax, settleLaneInFlight)
	p.lanes[publishLane] = mk("publishes", publishLaneBytesMax, publishLaneInFlight)
	return p
}

// start begins proposing to r. Until then commands can only be refused.
func (p *proposer) start(r proposals) {
	p.raft = r
	for _, l := range p.lanes {
		for range l.workers {
			p.wg.Go(func() { p.work(l) })
		}
	}
}

// submit queues a command that has passed fsm.Check. done is called exactly
// once, possibly before submit returns.
func (p *proposer) submit(kind fsm.Kind, payload []byte, done func(outcome)) {
	if refused := p.join(kind, payload, done); refused != nil {
		done(outcome{Err: refused})
	}
}

func (p *proposer) join(kind fsm.Kind, payload []byte, done func(outcome)) *wire.ErrorReply {
	command := fsm.CommandBytes(len(payload))
	most := entryBytesMax - entryOverhead
	if kind != fsm.KindRestoreChunk {
		most -= restoreOverhead
	}
	if command > most {
		return &wire.ErrorReply{Code: wire.CodeTooLarge, Text: "the request does not fit an entry of the log"}
	}
	bytes := command + waiterBytes
	p.mu.Lock()
	l := p.lanes[laneOf(kind)]
	switch p.phase {
	case preparing, serving:
	case following:
		p.mu.Unlock()
		return p.cfg.refusal()
	default:
		p.mu.Unlock()
		return errShuttingDown()
	}
	if l.bytes+bytes > l.bytesMax {
		p.mu.Unlock()
		return errOverloaded(l.name)
	}
	e := l.open(command)
	if e == nil {
		p.number++
		e = &entry{w: fsm.NewEntry(p.number), number: p.number}
		l.queue = append(l.queue, e)
	}
	e.w.Add(kind, payload)
	e.waiters = append(e.waiters, waiter{kind: kind, bytes: bytes, done: done})
	e.bytes += bytes
	l.bytes += bytes
	if kind == fsm.KindAttach {
		l.attaches++
	}
	p.mu.Unlock()
	l.signal()
	return nil
}

const (
	// entryOverhead is room for the entry's own header.
	entryOverhead = 64
	// restoreOverhead is what a chunk of a backup takes beside its message: every
	// message that is stored can be restored.
	restoreOverhead = 256
)

// open returns the entry that a command of n bytes may join, nil for none.
func (l *lane) open(n int) *entry {
	if len(l.queue) == 0 {
		return nil
	}
	e := l.queue[len(l.queue)-1]
	if e.w.Len()+n > entryBytesGoal || e.w.Count() >= entryCommandsMax {
		return nil
	}
	return e
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tick asks for an entry, so that the log's time moves and timers fire. While
// one of the lane is waiting or in flight it is not needed: the ticker looks
// again when that one is applied.
func (p *proposer) tick() {
	p.mu.Lock()
	l := p.lanes[settleLane]
	wanted := p.phase == serving && len(l.queue) == 0 && l.flying == 0 && !l.tick
	if wanted {
		l.tick = true
	}
	p.mu.Unlock()
	if wanted {
		l.signal()
	}
}

func (p *proposer) work(l *lane) {
	for {
		select {
		case l.turn <- struct{}{}:
		case <-p.end:
			return
		}
		pr := p.take(l)
		if pr == nil {
			<-l.turn
			return
		}
		stamp := p.cfg.clock.sample(p.oldestWait())
		f := p.raft.Apply(pr.entry.w.Finish(stamp, p.cfg.wall()), proposeTimeout)
		f = bound(f, p.cfg.ended)
		<-l.turn
		p.finish(pr, f.Error())
	}
}

// take waits for an entry to propose, and returns nil when the proposer ends.
func (p *proposer) take(l *lane) *proposal {
	for {
		for l == p.lanes[publishLane] && p.cfg.hold != nil && p.cfg.hold() {
			select {
			case <-time.After(holdPause):
			case <-p.end:
				return nil
			}
		}
		if pr := p.maybeTake(l); pr != nil {
			return pr
		}
		select {
		case <-l.wake:
		case <-p.end:
			return nil
		}
	}
}

func (p *proposer) maybeTake(l *lane) *proposal {
	since := p.cfg.mono()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving && p.phase != draining {
		return nil
	}
	var e *entry
	switch {
	case len(l.queue) > 0:
		e = l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
	case l.tick:
		p.number++
		e = &entry{w: fsm.NewEntry(p.number), number: p.number}
	default:
		return nil
	}
	l.tick = false
	l.flying++
	pr := &proposal{entry: e, lane: l, since: since}
	p.inflight[e.number] = pr
	return pr
}

// finish answers what the future says about a proposal that was not applied
// here. A nil error means that it was: then there is nothing left to answer,
// unless the node was being closed and applied nothing any more.
func (p *proposer) finish(pr *proposal, err error) {
	p.mu.Lock()
	_, waiting := p.inflight[pr.entry.number]
	if waiting {
		p.release(pr)
	}
	p.mu.Unlock()
	if !waiting {
		return
	}
	refused := errUnknown("the node is closing")
	if err != nil {
		refused = errUnknown(err.Error())
		if p.cfg.classify(err) == raftlog.OutcomeNothingAppended {
			refused = p.cfg.refusal()
		}
	}
	for _, w := range pr.entry.waiters {
		w.done(outcome{Err: refused})
	}
}

// applied answers the waiters of an entry that was applied here. Called by the
// goroutine that applies.
func (p *proposer) applied(index uint64, eff *fsm.Effects) {
	p.mu.Lock()
	pr, ours := p.inflight[eff.Proposal]
	if ours {
		p.release(pr)
	}
	p.mu.Unlock()
	if !ours {
		return
	}
	for i, w := range pr.entry.waiters {
		if len(eff.Results) != len(pr.entry.waiters) {
			w.done(outcome{Err: errUnknown("the entry was applied with another number of results")})
			continue
		}
		w.done(outcome{Result: &eff.Results[i], Effects: eff, Index: index})
	}
}

// release takes a proposal out of the tables. Called with mu held.
func (p *proposer) release(pr *proposal) {
	delete(p.inflight, pr.entry.number)
	l := pr.lane
	l.flying--
	l.forget(pr.entry)
	p.maybeIdle()
	l.signal()
}

func (l *lane) forget(e *entry) {
	l.bytes -= e.bytes
	for _, w := range e.waiters {
		if w.kind == fsm.KindAttach {
			l.attaches--
		}
	}
}

// oldestWait is how long the oldest proposal has been with raft.
func (p *proposer) oldestWait() time.Duration {
	now := p.cfg.mono()
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest time.Duration
	for _, pr := range p.inflight {
		oldest = max(oldest, now-pr.since)
	}
	return oldest
}

// attachesWaiting is the number of attaches that have no answer yet.
func (p *proposer) attachesWaiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lanes[settleLane].attaches
}

// setPhase changes what may be done with commands. With following and closed
// everything that waits in a lane is refused: nothing of it was appended. What
// is in flight is answered by its future.
func (p *proposer) setPhase(ph phase) {
	p.mu.Lock()
	if p.phase == closed {
		p.mu.Unlock()
		return
	}
	p.phase = ph
	var refused []*entry
	if ph == following || ph == closed {
		for _, l := range p.lanes {
			for _, e := range l.queue {
				l.forget(e)
			}
			refused = append(refused, l.queue...)
			l.queue, l.tick = nil, false
		}
	}
	p.maybeIdle()
	p.mu.Unlock()
	for _, l := range p.lanes {
		l.signal()
	}
	if len(refused) == 0 {
		return
	}
	answer := p.cfg.refusal()
	if ph == closed {
		answer = errShuttingDown()
	}
	for _, e := range refused {
		for _, w := range e.waiters {
			w.done(outcome{Err: answer})
		}
	}
}

// drain stops taking commands and returns a channel that is closed when none
// is waiting or in flight.
func (p *proposer) drain() <-chan struct{} {
	idle := make(chan struct{})
	p.mu.Lock()
	if p.phase == serving {
		p.phase = draining
	}
	p.idle = idle
	p.maybeIdle()
	p.mu.Unlock()
	return idle
}

// maybeIdle closes idle when nothing is left. Called with mu held.
func (p *proposer) maybeIdle() {
	if p.idle == nil || len(p.inflight) > 0 {
		return
	}
	if p.phase == draining {
		for _, l := range p.lanes {
			if len(l.queue) > 0 || l.tick {
				return
			}
		}
	}
	close(p.idle)
	p.idle = nil
}

// stamp asks for a tick while draining, the last one of the term.
func (p *proposer) stamp() {
	p.mu.Lock()
	l := p.lanes[settleLane]
	if p.phase == draining {
		l.tick = true
	}
	p.mu.Unlock()
	l.signal()
}

// close ends the workers. raft must have ended before, or a worker may wait
// for it.
func (p *proposer) close() {
	p.setPhase(closed)
	p.mu.Lock()
	select {
	case <-p.end:
	default:
		close(p.end)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// nextNumber returns a proposal number for an entry that is proposed elsewhere.
func (p *proposer) nextNumber() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	return p.number
}

// resume takes commands again after a drain that led to nothing.
func (p *proposer) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == draining {
		p.phase = serving
	}
}
