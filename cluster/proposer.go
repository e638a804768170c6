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

// proposer turns commands into entries and entries into answers. Commands wait in
// batches, in the lane of their kind, which has memory of its own. A worker makes
// an entry of the oldest batch of each lane, settles first, stamps it, hands it to
// raft and waits until it is applied here or has failed.
//
// An entry costs each node a write, a round and a wake-up, whatever is in it: about
// a millisecond of CPU in all. So a second one follows only when it is worth that
// (see maybeTake), and meanwhile commands collect: batches adapt to the load, one
// command when nothing is in flight, hundreds when the disk is busy.
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
	turn chan struct{} // held by the worker that takes and hands over, so that entries keep their order
	wake chan struct{} // cap 1: there may be something to take
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the fields below; no call-out is made under it
	phase    phase
	lanes    [lanes]*lane
	inflight map[uint64]*proposal // by number
	number   uint64               // of the newest entry
	tick     bool                 // an entry is wanted even without commands
	passed   bool                 // publishes did not fit beside the settles of the newest entry
	idle     chan struct{}        // closed when draining and nothing is in flight; nil otherwise
}

// proposal is an entry that was handed to raft, or is being handed.
type proposal struct {
	number  uint64
	batches [lanes]*batch // in the order of its commands; nil when there is none of a lane
	since   time.Duration // monotonic, when they left their lanes
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

// lane is a queue of batches with memory of its own.
type lane struct {
	name      string
	bytesMax  int
	flyingMax int

	// Guarded by proposer.mu.
	queue    []*batch // oldest first; the last is open for more
	bytes    int      // waiting and in flight
	flying   int      // batches in flight
	attaches int      // waiting or in flight
}

func newProposer(cfg proposerConfig) *proposer {
	p := &proposer{
		cfg:      cfg,
		end:      make(chan struct{}),
		turn:     make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		inflight: make(map[uint64]*proposal),
		// Another leader's entries are applied here as well, also while a
		// proposal of ours waits for its future. Numbers that start at random
		// keep them apart.
		number: rand.Uint64(),
	}
	p.lanes[settleLane] = &lane{name: "settles", bytesMax: settleLaneBytesMax, flyingMax: settleLaneInFlight}
	p.lanes[publishLane] = &lane{name: "publishes", bytesMax: publishLaneBytesMax, flyingMax: publishLaneInFlight}
	return p
}

// start begins proposing to r. Until then commands can only be refused.
func (p *proposer) start(r proposals) {
	p.raft = r
	for range settleLaneInFlight + publishLaneInFlight {
		p.wg.Go(p.work)
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
	b := l.open(command)
	if b == nil {
		b = newBatch()
		l.queue = append(l.queue, b)
	}
	b.commands.Add(kind, payload)
	b.waiters = append(b.waiters, waiter{kind: kind, bytes: bytes, done: done})
	b.bytes += bytes
	l.bytes += bytes
	if kind == fsm.KindAttach {
		l.attaches++
	}
	p.mu.Unlock()
	p.signal()
	return nil
}

const (
	// entryOverhead is room for the entry's own header.
	entryOverhead = 64
	// restoreOverhead is what a chunk of a backup takes beside its message: every
	// message that is stored can be restored.
	restoreOverhead = 256
)

// open returns the batch that a command of n bytes may join, nil for none.
func (l *lane) open(n int) *batch {
	if len(l.queue) == 0 {
		return nil
	}
	b := l.queue[len(l.queue)-1]
	if b.commands.Len()+n > entryBytesGoal || b.commands.Count() >= batchCommandsMax {
		return nil
	}
	return b
}

// next is the batch that an entry may take, nil for none.
func (l *lane) next() *batch {
	if len(l.queue) == 0 || l.flying >= l.flyingMax {
		return nil
	}
	return l.queue[0]
}

// take moves the oldest batch into flight.
func (l *lane) take() *batch {
	b := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.flying++
	return b
}

func (p *proposer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// requestTick asks for an entry, so that the log's time moves and timers fire.
// While one is in flight, or settles wait for theirs, it is not needed: the ticker
// looks again when that one is applied.
func (p *proposer) requestTick() {
	p.mu.Lock()
	wanted := p.phase == serving && len(p.lanes[settleLane].queue) == 0 && len(p.inflight) == 0 && !p.tick
	if wanted {
		p.tick = true
	}
	p.mu.Unlock()
	if wanted {
		p.signal()
	}
}

func (p *proposer) work() {
	for {
		select {
		case p.turn <- struct{}{}:
		case <-p.end:
			return
		}
		pr := p.take()
		if pr == nil {
			<-p.turn
			return
		}
		stamp := p.cfg.clock.sample(p.oldestWait())
		f := p.raft.Apply(pr.encode(stamp, p.cfg.wall()), proposeTimeout)
		f = bound(f, p.cfg.ended)
		<-p.turn
		p.finish(pr, f.Error())
	}
}

// encode returns the entry.
func (pr *proposal) encode(stamp fsm.Time, wall int64) []byte {
	parts := make([]*fsm.Commands, 0, lanes)
	for _, b := range pr.batches {
		if b != nil {
			parts = append(parts, &b.commands)
		}
	}
	return fsm.NewEntry(pr.number, stamp, wall, parts...)
}

// take waits for an entry to propose, and returns nil when the proposer ends.
func (p *proposer) take() *proposal {
	for {
		held := p.cfg.hold != nil && p.cfg.hold()
		if pr := p.maybeTake(held); pr != nil {
			return pr
		}
		var again <-chan time.Time
		if held {
			again = time.After(holdPause)
		}
		select {
		case <-p.wake:
		case <-again:
		case <-p.end:
			return nil
		}
	}
}

// maybeTake makes a proposal of what waits, if it is worth an entry now:
//
//   - nothing is in flight;
//   - settles wait, and none are in flight: they never wait for publishes alone;
//   - so much waits that it gains more from being written while others are
//     replicated than it costs to be an entry of its own.
func (p *proposer) maybeTake(held bool) *proposal {
	since := p.cfg.mono()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving && p.phase != draining {
		return nil
	}
	settles, publishes := p.lanes[settleLane].next(), p.lanes[publishLane].next()
	if held {
		publishes = nil
	}
	if settles == nil && publishes == nil && !p.tick {
		return nil
	}
	settlesBytes, publishesBytes := settles.len(), publishes.len()
	alone := settles != nil && p.lanes[settleLane].flying == 0
	if len(p.inflight) > 0 && !alone && settlesBytes+publishesBytes < entryBytesWorth {
		return nil
	}
	if settles != nil && publishes != nil && settlesBytes+publishesBytes > entryBytesMax-entryOverhead {
		// One after the other, and the settles first.
		if p.passed {
			settles = nil
		} else {
			publishes = nil
		}
		p.passed = !p.passed
	}
	p.number++
	pr := &proposal{number: p.number, since: since}
	if settles != nil {
		pr.batches[settleLane] = p.lanes[settleLane].take()
	}
	if publishes != nil {
		pr.batches[publishLane] = p.lanes[publishLane].take()
	}
	p.tick = false
	p.inflight[pr.number] = pr
	return pr
}

// finish answers what the future says about a proposal that was not applied
// here. A nil error means that it was: then there is nothing left to answer,
// unless the node was being closed and applied nothing any more.
func (p *proposer) finish(pr *proposal, err error) {
	p.mu.Lock()
	_, waiting := p.inflight[pr.number]
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
	for _, b := range pr.batches {
		b.refuse(refused)
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
	results := eff.Results
	if len(results) != pr.commands() {
		for _, b := range pr.batches {
			b.refuse(errUnknown("the entry was applied with another number of results"))
		}
		return
	}
	for _, b := range pr.batches {
		if b == nil {
			continue
		}
		for i, w := range b.waiters {
			w.done(appliedOutcome(&results[i], eff, index))
		}
		results = results[len(b.waiters):]
		b.free()
	}
}

// commands is how many the proposal has.
func (pr *proposal) commands() (n int) {
	for _, b := range pr.batches {
		if b != nil {
			n += len(b.waiters)
		}
	}
	return n
}

// release takes a proposal out of the tables. Called with mu held.
func (p *proposer) release(pr *proposal) {
	delete(p.inflight, pr.number)
	for i, b := range pr.batches {
		if b != nil {
			p.lanes[i].flying--
			p.lanes[i].forget(b)
		}
	}
	p.maybeIdle()
	p.signal()
}

func (l *lane) forget(b *batch) {
	l.bytes -= b.bytes
	for _, w := range b.waiters {
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
	var refused []*batch
	if ph == following || ph == closed {
		for _, l := range p.lanes {
			for _, b := range l.queue {
				l.forget(b)
			}
			refused = append(refused, l.queue...)
			l.queue = nil
		}
		p.tick = false
	}
	p.maybeIdle()
	p.mu.Unlock()
	p.signal()
	if len(refused) == 0 {
		return
	}
	answer := p.cfg.refusal()
	if ph == closed {
		answer = errShuttingDown()
	}
	for _, b := range refused {
		b.refuse(answer)
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
			if len(l.queue) > 0 || p.tick {
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
	if p.phase == draining {
		p.tick = true
	}
	p.mu.Unlock()
	p.signal()
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
