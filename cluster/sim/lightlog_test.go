package sim

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// light is a cluster without raft, sockets and goroutines: the real queue machines
// over a model of a replicated log, and models of clients. One goroutine does
// everything in the order that the seed says, so a seed always gives the same run.
type light struct {
	r      *rand.Rand
	h      *history.Writer
	events events
	made   int // events so far, to keep those of one moment in order
	nodes  []*lightNode
	cuts   []cutLine
	delay  time.Duration // of a message, at most
	cs     []*lightConsumer
	ps     []*lightProducer
	ending bool // clients behave, and producers have stopped
	asleep bool // producers do nothing, and what was sent before arrives
	blind  bool // voters do not ask what a candidate knows: a bug that is planted, to see it found

	digests map[uint64]uint64 // by index, of the first node that came there
	broken  []string
	terms   uint64
	expired int // copies that were refused because their session had ended
}

type event struct {
	at time.Time
	n  int
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func (l *light) in(d time.Duration, do func()) {
	l.made++
	heap.Push(&l.events, event{time.Now().Add(d), l.made, do})
}

// run does what is due until a moment, in virtual time.
func (l *light) run(d time.Duration) {
	end := time.Now().Add(d)
	for len(l.events) > 0 && !l.events[0].at.After(end) && len(l.broken) == 0 {
		e := heap.Pop(&l.events).(event)
		time.Sleep(time.Until(e.at)) // of virtual time
		e.do()
	}
	time.Sleep(time.Until(end))
}

func (l *light) any(most time.Duration) time.Duration {
	return time.Duration(l.r.Int64N(int64(most) + 1))
}

func (l *light) fail(format string, args ...any) {
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
}

// open says whether something gets from one host to another.
func (l *light) open(from, to string) bool {
	return !slices.ContainsFunc(l.cuts, func(c cutLine) bool {
		return c.to == "" && (c.from == from || c.from == to) || c.from == from && c.to == to
	})
}

func (l *light) cut(last time.Duration, lines ...cutLine) {
	l.cuts = append(l.cuts, lines...)
	l.in(last, func() {
		for _, c := range lines {
			if i := slices.Index(l.cuts, c); i >= 0 {
				l.cuts = slices.Delete(l.cuts, i, i+1)
			}
		}
	})
}

const (
	lightTick     = 4 * time.Millisecond
	lightElection = 300 * time.Millisecond
	lightEntries  = 60 // between snapshots
	lightStamp    = 100 * time.Millisecond
	lightStall    = time.Second // what a stall may cost a lease
)

// lightEntry is an entry of the log.
type lightEntry struct {
	term uint64
	data []byte
}

// command is what waits to be proposed. done is told the result, or nil when
// nobody knows what became of it.
type command struct {
	request any
	done    func(r *fsm.Result)
}

// lightNode is one replica. term, log, base and snap are on its disk.
type lightNode struct {
	l    *light
	name string
	up   bool

	term           uint64
	log            []lightEntry
	base, baseTerm uint64 // of the last entry that is not in the log any more
	snap           []byte // the state at base

	m               *fsm.Machine
	bodies          *storage.Memory
	applied, commit uint64
	heard           time.Time     // from a leader
	ahead           time.Duration // of its wall clock

	// Of a leader:
	leads, serves bool
	reached       time.Time // when a majority was last to be reached both ways
	clock         fsm.Time  // cluster time at since
	since         time.Time
	appended      map[uint64]time.Time // when what is not committed was proposed
	stamped       time.Time
	waiting       []command
	pending       map[uint64][]func(r *fsm.Result)
	match         map[*lightNode]uint64
	attached      map[fsm.ConsumerID]*lightConsumer
}

func (n *lightNode) last() uint64 { return n.base + uint64(len(n.log)) }

func (n *lightNode) termAt(i uint64) uint64 {
	switch {
	case i == n.base:
		return n.baseTerm
	case i < n.base || i > n.last():
		return 0
	}
	return n.log[i-n.base-1].term
}

func (n *lightNode) start() {
	n.up, n.applied, n.commit, n.heard = true, n.base, n.base, time.Now()
	n.bodies = storage.NewMemory()
	n.m = fsm.New(fsm.Config{Group: fsmtest.Group}, n.bodies)
	if n.snap != nil {
		if err := n.m.Restore(bytes.NewReader(n.snap)); err != nil {
			n.l.fail("%s: restore: %v", n.name, err)
		}
	}
}

func (n *lightNode) kill() {
	n.follow()
	n.up, n.m = false, nil
}

// follow ends leadership: what is under way ends without an answer, and who was
// connected is so no more.
func (n *lightNode) follow() {
	if !n.leads {
		return
	}
	n.leads, n.serves = false, false
	for _, i := range sorted(n.pending) {
		for _, done := range n.pending[i] {
			done(nil)
		}
	}
	for _, c := range n.l.cs {
		if c.at == n {
			c.disconnect()
		}
	}
	n.waiting, n.pending, n.attached = nil, nil, nil
}

func sorted(m map[uint64][]func(*fsm.Result)) []uint64 {
	var all []uint64
	for i := range m {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

// tick is what a node does by itself, again and again.
func (n *lightNode) tick() {
	n.l.in(lightTick+n.l.any(lightTick), n.tick)
	switch {
	case !n.up:
		return
	case n.leads:
		n.sample()
		n.propose()
		n.replicate()
	case time.Since(n.heard) > lightElection+n.l.any(lightElection):
		n.campaign()
	}
	if n.up && n.applied-n.base > lightEntries && n.l.r.IntN(20) == 0 {
		n.snapshot()
	}
}

func (n *lightNode) snapshot() {
	s, err := n.m.Snapshot()
	if err != nil {
		n.l.fail("%s: snapshot: %v", n.name, err)
		return
	}
	defer s.Release()
	var buf bytes.Buffer
	if _, err := s.WriteTo(&buf); err != nil {
		n.l.fail("%s: snapshot: %v", n.name, err)
	}
	n.baseTerm = n.termAt(n.applied)
	n.log = slices.Clone(n.log[n.applied-n.base:])
	n.base, n.snap = n.applied, buf.Bytes()
}

// campaign asks all that can be reached both ways. Who hears a leader, or knows
// more, says no.
func (n *lightNode) campaign() {
	n.heard = time.Now() // not again at once
	voters, term := 1, n.term
	var yes []*lightNode
	for _, o := range n.l.nodes {
		if o == n || !o.up || !n.l.open(n.name, o.name) || !n.l.open(o.name, n.name) {
			continue
		}
		a, b := n.termAt(n.last()), o.termAt(o.last())
		if o.leads || time.Since(o.heard) < lightElection || !n.l.blind && (b > a || b == a && o.last() > n.last()) {
			continue
		}
		voters++
		term = max(term, o.term)
		yes = append(yes, o)
	}
	if 2*voters <= len(n.l.nodes) {
		return
	}
	for _, o := range append(yes, n) {
		o.term, o.heard = term+1, time.Now()
	}
	n.leads, n.serves, n.reached = true, false, time.Now()
	n.l.terms++
	n.appended = map[uint64]time.Time{}
	n.match, n.pending, n.attached = map[*lightNode]uint64{}, map[uint64][]func(*fsm.Result){}, map[fsm.ConsumerID]*lightConsumer{}
	nonce := fsm.Nonce{byte(n.term), byte(n.term >> 8), byte(n.term >> 16)}
	n.append(0, command{fsmtest.Term{Node: n.name, Nonce: nonce}, func(r *fsm.Result) {
		if r != nil && n.leads {
			n.serves, n.clock, n.since = true, n.m.Now(), time.Now()
			n.ping()
		}
	}}, command{fsmtest.Raise{Version: fsm.MachineVersion}, func(*fsm.Result) {}})
	for _, o := range n.l.nodes {
		if o != n && o.leads && o.term < n.term && n.l.open(n.name, o.name) {
			o.follow()
		}
	}
}

func (n *lightNode) append(stamp fsm.Time, cs ...command) {
	index := n.last() + 1
	var all []fsmtest.Command
	for _, c := range cs {
		all = append(all, fsmtest.New(c.request))
		n.pending[index] = append(n.pending[index], c.done)
	}
	n.log = append(n.log, lightEntry{n.term, fsmtest.Entry(index, stamp, time.Now().Add(n.ahead).UnixNano(), all...)})
	n.match[n], n.appended[index] = index, time.Now()
}

// propose puts what waits into one entry, or ticks when a deadline may be due.
func (n *lightNode) propose() {
	if !n.serves || len(n.waiting) == 0 && (n.m.NextTimer() == 0 || time.Since(n.stamped) < lightStamp) {
		return
	}
	cs := n.waiting
	n.waiting, n.stamped = nil, time.Now()
	n.append(n.clock, cs...)
}

// sample moves cluster time on, as the nodes do: by at most a second, and not
// while the oldest proposal waits for longer.
func (n *lightNode) sample() {
	passed := time.Since(n.since)
	n.since = time.Now()
	if at, waits := n.appended[n.commit+1]; !waits || time.Since(at) <= lightStall {
		n.clock += fsm.Time(min(passed, lightStall))
	}
}

// ask is a request that has arrived. It is false when this node does not serve.
func (n *lightNode) ask(c command) bool {
	if !n.up || !n.serves {
		return false
	}
	n.waiting = append(n.waiting, c)
	return true
}

// lease says whether a leader may go on: raft's ends when it has not heard from a
// majority, itself among it, for a while.
func (n *lightNode) lease() bool {
	reach := 1
	for _, o := range n.l.nodes {
		if o != n && o.up && n.l.open(n.name, o.name) && n.l.open(o.name, n.name) {
			reach++
		}
	}
	if 2*reach > len(n.l.nodes) {
		n.reached = time.Now()
	}
	return time.Since(n.reached) <= lightElection
}

// replicate sends each other node what it lacks, or a part of it.
func (n *lightNode) replicate() {
	if !n.lease() {
		n.follow()
		return
	}
	for _, o := range n.l.nodes {
		if o == n || !o.up || !n.l.open(n.name, o.name) || n.l.r.IntN(5) == 0 {
			continue
		}
		if o.term > n.term {
			if n.l.open(o.name, n.name) {
				n.follow()
				return
			}
			continue
		}
		o.take(n)
		if n.l.open(o.name, n.name) {
			n.match[o] = n.agree(o)
		}
	}
	var at []uint64
	for _, o := range n.l.nodes {
		at = append(at, n.match[o])
	}
	slices.Sort(at)
	if most := at[(len(at)-1)/2]; most > n.commit && n.termAt(most) == n.term {
		for i := n.commit + 1; i <= most; i++ {
			delete(n.appended, i)
		}
		n.commit = most
	}
	n.apply()
}

// agree is the highest index up to which the logs are the same.
func (n *lightNode) agree(o *lightNode) uint64 {
	i := min(n.last(), o.last())
	for i > max(n.base, o.base) && n.termAt(i) != o.termAt(i) {
		i--
	}
	return i
}

// take is AppendEntries at the follower, or InstallSnapshot.
func (o *lightNode) take(n *lightNode) {
	if o.leads {
		o.follow()
	}
	o.term, o.heard = n.term, time.Now()
	if o.last() < n.base || o.base < n.base && o.termAt(n.base) != n.baseTerm {
		o.log, o.base, o.baseTerm, o.snap = nil, n.base, n.baseTerm, n.snap
		o.start()
	}
	same := o.agree(n)
	if same < min(o.last(), n.last()) {
		o.log = o.log[:same-o.base]
	}
	for same == o.last() && same < n.last() && o.l.r.IntN(8) > 0 {
		o.log = append(o.log, n.log[same-n.base])
		same++
	}
	o.commit = max(o.commit, min(n.commit, same))
	o.apply()
}

// apply applies what is committed. Replicas at one index are identical.
func (n *lightNode) apply() {
	for n.up && n.applied < n.commit && len(n.l.broken) == 0 {
		n.applied++
		eff, err := n.m.Apply(n.applied, n.log[n.applied-n.base-1].data)
		if err != nil {
			n.l.fail("%s: apply %d: %v", n.name, n.applied, err)
			return
		}
		digest := n.m.Digest()
		if first, ok := n.l.digests[n.applied]; !ok {
			n.l.digests[n.applied] = digest
		} else if first != digest {
			n.l.fail("digests: %s has %016x at %d, another has %016x", n.name, digest, n.applied, first)
		}
		done := n.pending[n.applied]
		delete(n.pending, n.applied)
		for i, f := range done {
			f(&eff.Results[i])
		}
		if !n.leads {
			continue
		}
		for _, d := range eff.Deliveries {
			if c := n.attached[d.Consumer]; c != nil && c.n == d.N {
				n.deliver(c, d, eff.Now)
			}
		}
		for _, lost := range eff.Lost {
			if c := n.attached[lost.Consumer]; c != nil && c.n == lost.N {
				c.push(func() { c.lose(lost) })
			}
		}
	}
}

func (n *lightNode) deliver(c *lightConsumer, d fsm.Delivery, now fsm.Time) {
	_, payload, ok := n.bodies.Get(d.Queue, d.Lane, d.Offset)
	if !ok {
		n.l.fail("%s: the body of offset %d is not there", n.name, d.Offset)
		return
	}
	m, err := wire.DecodeMessage(payload)
	if err != nil {
		n.l.fail("%s: the body of offset %d: %v", n.name, d.Offset, err)
		return
	}
	sent := time.Now()
	left := time.Duration(d.Deadline - now)
	c.push(func() { c.deliver(d, m.BizID, left-time.Since(sent)) })
}

// ping keeps leader and consumers informed of each other: who was not heard for a
// while is cut off by either.
func (n *lightNode) ping() {
	if !n.serves {
		return
	}
	for _, c := range n.l.cs {
		if c.at != n {
			continue
		}
		if n.l.open(n.name, c.name) && n.l.open(c.name, n.name) {
			c.pinged = time.Now()
			c.hear()
		} else if time.Since(c.pinged) > lightSilent {
			c.disconnect()
		}
	}
	n.l.in(lightPing, n.ping)
}
