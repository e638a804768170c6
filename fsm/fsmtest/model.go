package fsmtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Model is the queue machine again, slow and obvious: every message is a
// struct in a list, nothing is cached, indexed or incremental, and each step
// walks through everything. It has caps and no budgets: run it against a
// machine whose budgets the test does not reach.
type Model struct {
	Limits fsm.Limits // a cap of 0: none
	Wall   int64      // the leader's wall clock, of the entry that is applied
	// Served says in which order the machine served what was due in the entry that is
	// applied. It matters for dead letters alone: which comes first, and whether there
	// was room for it. What is due is found without it.
	Served []Owner
	Now    time.Duration
	// Backoff is the machine's own: its jitter is a hash.
	Backoff  func(s wire.QueueSettings, queue uint64, lane uint8, offset uint64, failures uint32) time.Duration
	sessions []*modelSession
	queues   []*modelQueue // deleted ones stay, so that leases on them are found
	graceMin time.Duration
	holds    int
	epochs   uint64 // of named sessions
	leaders  int
	version  uint32 // 0 is the first
	from     int    // the queue that is served first, while a cap holds others back
}

// Owner is a queue or a consumer that something was due for; a session has neither.
type Owner struct {
	Queue    uint64
	Consumer wire.ConsumerID
}

type modelSession struct {
	closed   bool
	named    bool
	name     string
	nonce    wire.Nonce
	epoch    uint64
	floor    uint64
	highest  uint64
	active   time.Duration
	outcomes map[uint64]modelOutcome
}

type modelOutcome struct {
	sealed   bool
	several  bool // of an ack-and-publish
	checksum uint64
	places   []string
}

type modelQueue struct {
	of         *Model
	deleted    bool
	name       string
	settings   wire.QueueSettings
	paused     bool
	revision   uint64
	nonce      wire.Nonce
	removed    uint64
	edited     wire.Nonce // of the newest edit, and its answer
	answer     string
	lanes      [fsm.Priorities][]*modelMessage // by offset
	milestones [fsm.Priorities][]*modelMilestone
	keys       map[string][]*modelMessage // the first has its turn, the rest wait by offset
	consumers  []*modelConsumer           // in the order of their first attach
}

// modelMessage.state is ready, leased, delayed, parked, or a way to be gone.
type modelMessage struct {
	queue     *modelQueue
	lane      int
	offset    int
	state     string
	own       bool // it has a record: its size and expiry are exact
	ranged    bool // it is gone and needs no record for that
	size      uint64
	attempts  int
	failures  uint32
	stored    time.Duration
	due       time.Duration
	expires   time.Duration // 0: never
	key       string        // its place in keys
	oldKey    string        // while parked or a dead letter
	origin    *modelQueue
	laneThere int             // of a dead letter, in its origin
	milestone *modelMilestone // of a plain one that was never delivered
}

// modelMilestone joins plain messages that were stored within a second.
type modelMilestone struct {
	start time.Duration
	bytes uint64
}

type modelConsumer struct {
	id       wire.ConsumerID
	ordinal  int
	n        uint64
	attached bool
	newest   *modelEntry // in which it attached last
	attaches int         // in it
	credit   int
	resumed  time.Duration // no lease ends before it
	graceEnd time.Duration
	leaving  bool
	spared   map[uint64]bool // by leave: no handler has seen them
	done     uint64
	log      []*modelDelivery // number 1 first; never shortened

	// Of a puller, which asks instead of attaching.
	pulled uint64 // first number of its newest receive, 0: it attaches
	want   int    // of a receive in this entry
	busy   bool   // it held something when it was looked at last
	idle   time.Duration
}

type modelDelivery struct {
	state    wire.LeaseState
	message  *modelMessage
	attempt  int
	deadline time.Duration
	fell     bool // below done: the outcome is forgotten
	tell     bool // purged, and nobody has heard of it
}

// Apply runs one entry and says what happened, one line a result or event, in
// the words of Describe.
func (m *Model) Apply(now time.Duration, cs []Command) []string {
	m.Now = max(m.Now, now)
	e := &modelEntry{Model: m}
	for _, c := range cs {
		e.results = append(e.results, e.run(c))
	}
	e.timers()
	e.assign()
	return append(append(e.results, e.deliveries...), e.lost...)
}

type modelEntry struct {
	*Model
	results, deliveries, lost []string
	pulls                     []*modelPull
}

func (e *modelEntry) run(c Command) string {
	switch r := c.Request.(type) {
	case Term:
		e.leaders++
		e.holds = 0
		for _, q := range e.queues {
			for _, k := range q.consumers {
				if k.attached {
					k.attached, k.graceEnd = false, e.Now+fsm.GraceTime
				}
			}
		}
		return "ok"
	case Detach:
		_, k := e.consumer(wire.ConsumerID(r.Consumer))
		switch {
		case k == nil:
			return "consumer gone"
		case k.n != r.N || !k.attached:
			return "stale"
		}
		k.attached, k.graceEnd = false, e.Now+fsm.GraceTime
		return "ok"
	case Raise:
		e.version = max(e.version, r.Version)
		return "ok"
	case HoldGrace:
		if e.holds == fsm.GraceHoldsMax {
			return "stale"
		}
		e.holds++
		e.graceMin = max(e.graceMin, e.Now+fsm.GraceTime)
		return "ok"
	case DigestCommand:
		return "ok"
	case wire.OpenSession:
		return e.open(r)
	case wire.CloseSession:
		s := e.session(r.Session)
		if s == nil {
			return "ok"
		}
		if st := s.judge(r.Epoch); st != "" {
			return st
		}
		s.closed = true
		return "ok"
	case wire.PublishFrame:
		return e.publish(r)
	case wire.Seal:
		return e.seal(r)
	case wire.Attach:
		return e.attach(r)
	case wire.Leave:
		return e.leave(r)
	case wire.Settle:
		return e.settle(r)
	case wire.Receive:
		if e.version < 2 {
			return "unsupported"
		}
		e.pulls = append(e.pulls, &modelPull{Receive: r, at: len(e.results)})
		return "" // see assign
	case wire.Release:
		if e.version < 2 {
			return "unsupported"
		}
		return e.release(r)
	case wire.QueueCreate:
		return e.create(r)
	case wire.QueueDelete:
		return e.deleteQueue(r)
	case wire.QueuePurge:
		return e.purge(r)
	case wire.QueueUpdate:
		return e.update(r)
	case wire.QueuePause:
		return e.pause(r)
	case wire.Edit:
		return e.edit(r)
	case wire.AckPublish:
		return e.ackPublish(r)
	}
	panic("fsmtest: not a command")
}

func (m *Model) session(number uint64) *modelSession {
	if number == 0 || number > uint64(len(m.sessions)) || m.sessions[number-1].closed {
		return nil
	}
	return m.sessions[number-1]
}

func (s *modelSession) judge(epoch uint64) string {
	switch {
	case epoch < s.epoch:
		return "fenced"
	case epoch > s.epoch:
		return "epoch mismatch"
	}
	return ""
}

func (m *Model) queue(name string) (int, *modelQueue) {
	for i, q := range m.queues {
		if q.name == name && !q.deleted {
			return i + 1, q
		}
	}
	return 0, nil
}

func (m *Model) consumer(id wire.ConsumerID) (*modelQueue, *modelConsumer) {
	for _, q := range m.queues {
		for _, k := range q.consumers {
			if k.id == id {
				return q, k
			}
		}
	}
	return nil, nil
}

func (e *modelEntry) open(r wire.OpenSession) string {
	name := r.Name
	if !r.Named {
		name = string(r.Nonce[:])
	}
	number, s := 0, (*modelSession)(nil)
	for i, x := range e.sessions {
		if !x.closed && x.named == r.Named && x.name == name {
			number, s = i+1, x
		}
	}
	switch {
	case s == nil && r.ExpectedEpoch != 0:
		return "epoch mismatch 0"
	case s == nil && (reached(e.Limits.SessionsMax, len(e.openSessions())) || reached(e.Limits.SessionBytesMax, e.sessionBytes())):
		return "too many sessions"
	case s == nil:
		s = &modelSession{named: r.Named, name: name, nonce: r.Nonce, epoch: 1, floor: 1, outcomes: map[uint64]modelOutcome{}}
		if r.Named {
			e.epochs++
			s.epoch = e.epochs
		}
		e.sessions = append(e.sessions, s)
		number = len(e.sessions)
	case s.nonce == r.Nonce:
	case s.epoch != r.ExpectedEpoch:
		return fmt.Sprintf("epoch mismatch %d", s.epoch)
	default:
		e.epochs++
		s.epoch, s.nonce = e.epochs, r.Nonce
	}
	s.active = e.Now
	return fmt.Sprintf("ok s%d epoch %d floor %d next %d", number, s.epoch, s.floor, max(s.floor, s.highest+1))
}

func (e *modelEntry) publish(r wire.PublishFrame) string {
	var out []string
	s := e.session(r.Session)
	all := ""
	if s == nil {
		all = "session expired"
	} else if all = s.judge(r.Epoch); all == "" {
		s.active = e.Now
		s.raise(r.Floor)
	}
	for _, p := range r.Publishes {
		if all != "" {
			out = append(out, fmt.Sprintf("%d %s", p.Sequence, all))
			continue
		}
		out = append(out, fmt.Sprintf("%d %s", p.Sequence, e.judge(s, r.Queue, p)))
	}
	return strings.Join(out, ", ")
}

func (s *modelSession) raise(floor uint64) {
	s.floor = max(s.floor, floor)
	for seq := range s.outcomes {
		if seq < s.floor {
			delete(s.outcomes, seq)
		}
	}
}

// known is what is answered without storing anything, "" when the copy may be
// stored.
func (s *modelSession) known(sequence, after, checksum uint64, version uint32) string {
	if sequence < s.floor {
		return "below floor"
	}
	if sequence >= s.floor+fsm.SessionWindow {
		return "window full"
	}
	if o, ok := s.outcomes[sequence]; ok {
		if !o.sealed && o.checksum != checksum {
			return "body differs"
		}
		return o.String() + map[bool]string{false: " duplicate", true: ""}[o.sealed]
	}
	if o, ok := s.outcomes[after]; after >= s.floor && (!ok || o.sealed && version >= 3) {
		return "out of order"
	}
	return ""
}

func (e *modelEntry) judge(s *modelSession, queue string, p wire.Publish) string {
	if st := s.known(p.Sequence, p.After, p.Checksum, e.version); st != "" {
		return st
	}
	_, q := e.queue(queue)
	if st := e.room(q, p.Messages); st != "" {
		return st
	}
	if e.outcomeCap() {
		return "too many open outcomes"
	}
	o := modelOutcome{checksum: p.Checksum, places: []string{e.store(q, p.Messages)}}
	s.outcomes[p.Sequence] = o
	s.highest = max(s.highest, p.Sequence)
	return o.String()
}

func (o modelOutcome) String() string {
	if o.sealed {
		return "sealed"
	}
	return "ok " + strings.Join(o.places, " ")
}

func encodedSize(m wire.Message) uint64 {
	var w pack.Writer
	m.Append(&w)
	return uint64(w.Len())
}

// room says why messages do not fit, "" when they do.
func (m *Model) room(q *modelQueue, ms []wire.Message) string {
	if q == nil {
		return "no queue"
	}
	bytes := uint64(0)
	for _, x := range ms {
		bytes += encodedSize(x)
	}
	if !q.fits(len(ms), bytes) {
		return "queue full"
	}
	if n := indexed(ms); n > 0 && !m.mayIndex(n) {
		return "too many indexed messages"
	}
	return ""
}

// indexed counts messages that need a record.
func indexed(ms []wire.Message) (n int) {
	for _, m := range ms {
		if m.OrderingKey != "" || m.Delay != 0 || m.DeliverAt != 0 || m.TTL != 0 {
			n++
		}
	}
	return n
}

func (q *modelQueue) fits(n int, bytes uint64) bool {
	c := q.counts()
	held := c["ready"] + c["leased"] + c["delayed"]
	if most := q.settings.LengthMax; most > 0 && (uint64(held) >= most || uint64(held+n) > most) {
		return false
	}
	most, have := q.settings.BytesMax, q.bytes()
	return most == 0 || have < most && have+bytes <= most
}

// bytes is exact for what has a record, and by milestone for what was never
// delivered.
func (q *modelQueue) bytes() (n uint64) {
	for i, lane := range q.lanes {
		for _, x := range lane {
			if x.own && x.here() {
				n += x.size
			}
		}
		for _, ms := range q.milestones[i] {
			n += ms.bytes
		}
	}
	return n
}

func (x *modelMessage) here() bool {
	switch x.state {
	case "ready", "leased", "delayed", "parked":
		return true
	}
	return false
}

// pass drops the milestones in front of which nothing plain is left.
func (q *modelQueue) pass() {
	for i := range q.milestones {
		for len(q.milestones[i]) > 0 {
			ms := q.milestones[i][0]
			if slices.ContainsFunc(q.lanes[i], func(x *modelMessage) bool { return x.milestone == ms }) {
				break
			}
			q.milestones[i] = q.milestones[i][1:]
		}
	}
}

func (e *modelEntry) add(q *modelQueue, lane int, x *modelMessage) *modelMessage {
	x.queue, x.lane, x.offset = q, lane, len(q.lanes[lane])
	q.lanes[lane] = append(q.lanes[lane], x)
	return x
}

func (e *modelEntry) store(q *modelQueue, ms []wire.Message) string {
	lane := int(ms[0].Priority)
	place := fmt.Sprintf("q%d/p%d.%d+%d", e.number(q), lane, len(q.lanes[lane]), len(ms))
	for _, m := range ms {
		x := e.add(q, lane, &modelMessage{state: "ready", size: encodedSize(m), stored: e.Now})
		if indexed([]wire.Message{m}) == 0 {
			list := q.milestones[lane]
			if n := len(list); n == 0 || e.Now-list[n-1].start >= time.Second {
				q.milestones[lane] = append(list, &modelMilestone{start: e.Now})
			}
			x.milestone = q.milestones[lane][len(q.milestones[lane])-1]
			x.milestone.bytes += x.size
			x.stored = x.milestone.start
			continue
		}
		x.own = true
		x.expires = q.expiry(e.Now, m.TTL)
		wait := m.Delay
		if m.DeliverAt != 0 {
			wait = time.Duration(m.DeliverAt - e.Wall)
		}
		if wait > 0 {
			x.state, x.due = "delayed", e.Now+wait
		}
		q.join(x, m.OrderingKey)
	}
	return place
}

func (q *modelQueue) expiry(stored, ttl time.Duration) time.Duration {
	if own := q.settings.TTL; own > 0 && (ttl == 0 || own < ttl) {
		ttl = own
	}
	if ttl == 0 {
		return 0
	}
	return stored + ttl
}

func (q *modelQueue) join(x *modelMessage, key string) {
	if key == "" {
		return
	}
	if q.keys == nil {
		q.keys = map[string][]*modelMessage{}
	}
	x.key = key
	list := append(q.keys[key], x)
	slices.SortStableFunc(list[1:], func(a, b *modelMessage) int { return a.offset - b.offset })
	q.keys[key] = list
}

func (q *modelQueue) leaveKey(x *modelMessage) {
	if x.key == "" {
		return
	}
	q.keys[x.key] = slices.DeleteFunc(q.keys[x.key], func(y *modelMessage) bool { return y == x })
	x.key = ""
}

// may says whether a message could be delivered now.
func (x *modelMessage) may() bool {
	return x.state == "ready" && (x.key == "" || x.queue.keys[x.key][0] == x)
}

// gone ends a message.
func (x *modelMessage) gone(how string) {
	x.state, x.ranged = how, x.queue.of.version >= 4
	x.plain(false)
	x.queue.leaveKey(x)
}

// plain takes a message out of the plain ones.
func (x *modelMessage) plain(own bool) {
	if x.milestone != nil || own {
		x.milestone = nil
		x.queue.pass()
	}
}

func (e *modelEntry) seal(r wire.Seal) string {
	s := e.session(r.Session)
	if s == nil {
		return "session expired"
	}
	if st := s.judge(r.Epoch); st != "" {
		return st
	}
	s.active = e.Now
	var out []string
	for _, seq := range r.Sequences {
		o, ok := s.outcomes[seq]
		switch {
		case seq < s.floor:
			out = append(out, fmt.Sprintf("%d below floor", seq))
			continue
		case seq >= s.floor+fsm.SessionWindow:
			out = append(out, fmt.Sprintf("%d window full", seq))
			continue
		case !ok && seq != s.floor && e.Limits.OutcomesMax > 0 && e.outcomes() >= e.Limits.OutcomesMax+e.Limits.SealsMax:
			out = append(out, fmt.Sprintf("%d too many open outcomes", seq))
			continue
		case !ok:
			o = modelOutcome{sealed: true}
			s.outcomes[seq] = o
			s.highest = max(s.highest, seq)
		}
		out = append(out, fmt.Sprintf("%d %s", seq, o))
	}
	return strings.Join(out, ", ")
}

func (e *modelEntry) attach(r wire.Attach) string {
	number, q := e.queue(r.Queue)
	owner, k := e.consumer(r.Consumer)
	if k == nil {
		if r.N != 1 {
			return "consumer gone"
		}
		if q == nil {
			return "no queue"
		}
		if reached(e.Limits.ConsumersMax, e.consumers()) {
			return "too many consumers"
		}
		k = e.newConsumer(r.Consumer, q)
		owner = q
	}
	switch {
	case k.leaving || owner != q || k.pulled > 0:
		return "consumer gone"
	case r.N < k.n || r.N == k.n && !k.attached || r.N > k.n && k.newest == e && k.attaches == 4:
		return "stale"
	}
	again := r.N == k.n
	if !again {
		if k.newest != e {
			k.newest, k.attaches = e, 0
		}
		k.attaches++
		k.n, k.attached, k.credit = r.N, true, int(r.Credit)
		if most := e.Limits.CreditMax; most > 0 {
			k.credit = min(k.credit, int(most))
		}
		k.resumed = e.Now + q.settings.LeaseTime
	}
	k.raise(r.Done)
	out := fmt.Sprintf("ok q%d next %d", number, len(k.log)+1)
	listed := map[uint64]bool{}
	for _, x := range r.Unsettled {
		for n := x.From; n <= x.To; n++ {
			listed[n] = true
			out += fmt.Sprintf(" %d:%v", n, k.state(n))
		}
	}
	if !again {
		for i, d := range k.log {
			if n := uint64(i + 1); k.state(n) == wire.LeaseHeld && !listed[n] {
				e.deliver(owner, k, n, d)
			}
		}
	}
	return out
}

func (e *modelEntry) newConsumer(id wire.ConsumerID, q *modelQueue) *modelConsumer {
	ordinal := 0
	for _, x := range e.queues {
		for _, c := range x.consumers {
			ordinal = max(ordinal, c.ordinal)
		}
	}
	k := &modelConsumer{id: id, ordinal: ordinal + 1, done: 1}
	q.consumers = append(q.consumers, k)
	return k
}

// state is what an answer says, and who hears it needs no telling.
func (k *modelConsumer) state(n uint64) wire.LeaseState {
	if n < 1 || n > uint64(len(k.log)) || k.log[n-1].fell {
		return wire.LeaseUnknown
	}
	k.log[n-1].tell = false
	return k.log[n-1].state
}

func (k *modelConsumer) raise(done uint64) {
	for k.done < done && k.done <= uint64(len(k.log)) && k.log[k.done-1].state != wire.LeaseHeld {
		k.log[k.done-1].fell = true
		k.done++
	}
}

func (k *modelConsumer) held() (n int) {
	for _, d := range k.log {
		if d.state == wire.LeaseHeld {
			n++
		}
	}
	return n
}

func (e *modelEntry) deliver(q *modelQueue, k *modelConsumer, n uint64, d *modelDelivery) {
	e.deliveries = append(e.deliveries, fmt.Sprintf("-> %x/%d #%d %s attempt %d until %v",
		k.id[:4], k.n, n, fmt.Sprintf("q%d/p%d.%d", e.number(q), d.message.lane, d.message.offset), d.attempt, max(d.deadline, k.resumed)))
}

func (m *Model) number(q *modelQueue) int { return slices.Index(m.queues, q) + 1 }

func (e *modelEntry) leave(r wire.Leave) string {
	_, k := e.consumer(r.Consumer)
	switch {
	case k == nil || k.leaving:
		return "consumer gone"
	case r.N < k.n:
		return "stale"
	}
	k.raise(r.Done)
	k.spared = map[uint64]bool{}
	for _, x := range r.NotHandled {
		for n := x.From; n <= x.To; n++ {
			k.spared[n] = true
		}
	}
	k.leaving, k.attached = true, false
	return "ok"
}

func (e *modelEntry) settle(r wire.Settle) string {
	q, k := e.consumer(r.Consumer)
	if k == nil {
		return "consumer gone"
	}
	out := "ok"
	for _, it := range r.Items {
		for n := it.From; n <= it.To; n++ {
			if k.state(n) == wire.LeaseHeld {
				d := k.log[n-1]
				switch it.Verb {
				case wire.VerbAck:
					d.state = wire.LeaseAcked
					d.message.gone("acked")
				case wire.VerbNack:
					e.failed(d, wire.LeaseNacked, it.Time)
				case wire.VerbReject:
					e.failed(d, wire.LeaseRejected, 0)
				case wire.VerbExtend:
					t := it.Time
					if t == 0 {
						t = q.settings.LeaseTime
					}
					d.deadline = e.Now + t
				}
			}
			out += fmt.Sprintf(" %d:%v", n, k.state(n))
		}
	}
	k.raise(r.Done)
	return out
}

// record gives a message that was plain a record: from now on its expiry counts
// by itself, and its bytes were given back when the head passed it.
func (e *modelEntry) record(x *modelMessage) {
	if !x.own {
		x.own, x.size = true, 0
		stored := x.stored
		if e.version >= 4 {
			stored += time.Second // as far as a milestone goes
		}
		x.expires = x.queue.expiry(stored, 0)
	}
}

// failed ends an attempt that has failed.
func (e *modelEntry) failed(d *modelDelivery, why wire.LeaseState, delay time.Duration) {
	d.state = why
	x := d.message
	q := x.queue
	e.record(x)
	x.failures++
	if limit := q.settings.DeliveryLimit; why == wire.LeaseRejected || limit > 0 && x.failures >= limit {
		e.deadLetter(x)
		return
	}
	if why == wire.LeaseNacked && delay == 0 {
		delay = e.Backoff(q.settings, uint64(e.number(q)), uint8(x.lane), uint64(x.offset), x.failures)
	}
	e.comeBack(x, delay)
}

func (e *modelEntry) comeBack(x *modelMessage, delay time.Duration) {
	switch {
	case x.expires > 0 && x.expires <= e.Now:
		x.gone("expired")
	case delay > 0:
		x.state, x.due = "delayed", e.Now+delay
	default:
		x.state = "ready"
	}
}

func (e *modelEntry) deadLetter(x *modelMessage) {
	_, target := e.queue(x.queue.settings.DeadLetter)
	if target == nil || target == x.queue || !target.fits(1, x.size) {
		x.state = "parked"
		x.oldKey = x.key
		x.queue.leaveKey(x)
		return
	}
	moved := e.add(target, 0, &modelMessage{
		state: "ready", own: true, size: x.size, stored: e.Now, expires: target.expiry(e.Now, 0),
		origin: x.queue, laneThere: x.lane, oldKey: x.key, attempts: x.attempts,
	})
	if moved.oldKey == "" {
		moved.oldKey = x.oldKey
	}
	x.gone("dead")
}

// live returns a queue by number, nil when it is not there.
func (m *Model) live(number uint64) *modelQueue {
	if number == 0 || number > uint64(len(m.queues)) || m.queues[number-1].deleted {
		return nil
	}
	return m.queues[number-1]
}

func (e *modelEntry) edit(r wire.Edit) string {
	q := e.live(r.Number)
	if q == nil {
		return "no queue"
	}
	if q.edited == r.Nonce && r.Nonce != (wire.Nonce{}) {
		return q.answer
	}
	var target *modelQueue
	if r.Target != "" {
		if _, target = e.queue(r.Target); target == nil || target == q {
			return "no queue"
		}
	}
	out := "ok"
	for _, p := range r.Places {
		out += fmt.Sprintf(" %d", e.editOne(q, target, p, fsm.EditVerb(r.Verb)))
	}
	if slices.Contains(strings.Fields(out), fmt.Sprint(fsm.EditDone)) {
		q.edited, q.answer = r.Nonce, out
	}
	return out
}

// turn is odd while the message is leased, and never the same again after it was.
func (x *modelMessage) turn() uint64 {
	n := 2 * uint64(x.attempts)
	if x.state == "leased" {
		n--
	}
	return n
}

// Turn is that of the message at a place, for edits that make sense.
func (m *Model) Turn(queue uint64, lane uint8, offset uint64) uint64 {
	q := m.live(queue)
	if q == nil || offset >= uint64(len(q.lanes[lane])) {
		return 0
	}
	return q.lanes[lane][offset].turn()
}

func (e *modelEntry) editOne(q, target *modelQueue, p wire.Place, verb fsm.EditVerb) fsm.EditState {
	if p.Offset >= uint64(len(q.lanes[p.Lane])) || !q.lanes[p.Lane][p.Offset].here() {
		return fsm.EditNotHere
	}
	x := q.lanes[p.Lane][p.Offset]
	if x.state == "leased" {
		if verb != fsm.EditRelease {
			return fsm.EditLeased
		}
		if p.Turn != x.turn() {
			return fsm.EditChanged
		}
		for _, k := range q.consumers {
			for i, d := range k.log {
				if d.message == x && d.state == wire.LeaseHeld {
					d.state = wire.LeaseReturned
					e.record(x)
					e.comeBack(x, 0)
					if k.attached {
						e.lost = append(e.lost, fmt.Sprintf("lost %x/%d #%d returned", k.id[:4], k.n, i+1))
					}
				}
			}
		}
		return fsm.EditDone
	}
	if p.Turn != x.turn() {
		return fsm.EditChanged
	}
	switch verb {
	case fsm.EditDelete:
		if !x.own && x.offset != q.head(x.lane) && !e.mayEndAhead() {
			return fsm.EditCapped
		}
		x.gone("deleted")
		return fsm.EditDone
	case fsm.EditRequeue:
		switch x.state {
		case "parked":
			x.failures = 0
			x.expires = q.expiry(e.Now, 0)
			q.join(x, x.oldKey)
			x.oldKey = ""
		case "delayed":
		default:
			return fsm.EditUnchanged
		}
		x.state = "ready"
		return fsm.EditDone
	case fsm.EditMove:
		if target == nil && x.own && x.origin != nil && !x.origin.deleted {
			target = x.origin
		}
		size := x.size
		if !x.own {
			size = 0
		}
		if target == nil || target == q || !target.fits(1, size) {
			return fsm.EditRefused
		}
		records := 0 // that there are more of afterwards
		if !x.own {
			records++
		}
		ahead := x.own && x.offset >= q.head(x.lane) || !x.own && x.offset != q.head(x.lane)
		if ahead && e.version < 4 {
			records++
		}
		if records > 0 && !e.mayIndex(records) || ahead && !e.mayEndAhead() {
			return fsm.EditCapped
		}
		key, lane := cmp.Or(x.key, x.oldKey), 0
		if e.version >= 4 && target == x.origin && key == "" {
			lane = x.laneThere
		}
		moved := e.add(target, lane, &modelMessage{state: "ready", own: true, size: size, stored: e.Now, expires: target.expiry(e.Now, 0), attempts: x.attempts})
		x.gone("moved")
		target.join(moved, key)
		return fsm.EditDone
	}
	return fsm.EditUnchanged
}

func (e *modelEntry) ackPublish(r wire.AckPublish) string {
	s := e.session(r.Session)
	say := func(what string) string { return fmt.Sprintf("%d %s", r.Sequence, what) }
	if s == nil {
		return say("session expired")
	}
	if st := s.judge(r.Epoch); st != "" {
		return say(st)
	}
	s.active = e.Now
	s.raise(r.Floor)
	if st := s.known(r.Sequence, 0, r.Checksum, e.version); st != "" {
		return say(st)
	}
	_, k := e.consumer(r.Consumer)
	if k == nil {
		return say("consumer gone")
	}
	if k.state(r.Number) != wire.LeaseHeld {
		return say("lease lost")
	}
	if e.outcomeCap() {
		return say("too many open outcomes")
	}
	records := 0
	for _, out := range r.Outputs {
		_, q := e.queue(out.Queue)
		if st := e.room(q, out.Messages); st != "" {
			return say(st)
		}
		records += indexed(out.Messages)
	}
	if records > 0 && !e.mayIndex(records) {
		return say("too many indexed messages")
	}
	d := k.log[r.Number-1]
	d.state = wire.LeaseAcked
	d.message.gone("acked")
	o := modelOutcome{checksum: r.Checksum, several: true}
	for _, out := range r.Outputs {
		_, q := e.queue(out.Queue)
		o.places = append(o.places, e.store(q, out.Messages))
	}
	s.outcomes[r.Sequence] = o
	s.highest = max(s.highest, r.Sequence)
	k.raise(r.Done)
	return say(o.String())
}

func (e *modelEntry) create(r wire.QueueCreate) string {
	want := defaults(r.Settings)
	number, q := e.queue(r.Name)
	deletions := uint64(0)
	for _, x := range e.queues {
		if x.deleted {
			deletions++
		}
	}
	if q == nil && r.Deletions < deletions {
		return "revision has changed"
	}
	if live := slices.DeleteFunc(slices.Clone(e.queues), func(x *modelQueue) bool { return x.deleted }); q == nil && reached(e.Limits.QueuesMax, len(live)) {
		return "too many queues"
	}
	if q == nil {
		q = &modelQueue{of: e.Model, name: r.Name, settings: want, revision: 1}
		e.queues = append(e.queues, q)
		number = len(e.queues)
	}
	if q.settings != want {
		return "conflict"
	}
	return fmt.Sprintf("ok q%d", number)
}

func defaults(s wire.QueueSettings) wire.QueueSettings {
	if s.LeaseTime == 0 {
		s.LeaseTime = fsm.LeaseTimeDefault
	}
	if s.BackoffMin == 0 {
		s.BackoffMin = fsm.BackoffMinDefault
	}
	if s.BackoffMax == 0 {
		s.BackoffMax = max(fsm.BackoffMaxDefault, s.BackoffMin)
	}
	return s
}

func (e *modelEntry) update(r wire.QueueUpdate) string {
	q := e.live(r.Number)
	switch {
	case q == nil:
		return "no queue"
	case r.Settings.DeadLetter == q.name:
		return "malformed"
	case q.nonce == r.Nonce && q.revision == r.Revision+1:
	case q.revision != r.Revision:
		return "revision has changed"
	default:
		q.settings, q.nonce, q.removed = defaults(r.Settings), r.Nonce, 0
		q.revision++
	}
	return "ok"
}

func (e *modelEntry) pause(r wire.QueuePause) string {
	q := e.live(r.Number)
	switch {
	case q == nil:
		return "no queue"
	case q.nonce == r.Nonce && q.revision == r.Revision+1:
	case q.revision != r.Revision:
		return "revision has changed"
	default:
		q.paused, q.nonce, q.removed = r.Paused, r.Nonce, 0
		q.revision++
	}
	return "ok"
}

func (e *modelEntry) deleteQueue(r wire.QueueDelete) string {
	if r.Number == 0 || r.Number > uint64(len(e.queues)) {
		return "no queue removed 0"
	}
	q := e.queues[r.Number-1]
	if q.deleted {
		return "ok removed 0"
	}
	for _, other := range e.queues {
		if !other.deleted && other.settings.DeadLetter == q.name && !r.Force {
			return "conflict removed 0"
		}
	}
	q.deleted = true
	n := q.here()
	for _, k := range q.consumers {
		for _, d := range k.log {
			if d.state == wire.LeaseHeld || d.tell {
				d.state, d.tell = wire.LeaseDeleted, false
			}
		}
	}
	return fmt.Sprintf("ok removed %d", n)
}

func (q *modelQueue) here() (n uint64) {
	for _, lane := range q.lanes {
		for _, x := range lane {
			if x.here() {
				n++
			}
		}
	}
	return n
}

func (e *modelEntry) purge(r wire.QueuePurge) string {
	q := e.live(r.Number)
	if q == nil {
		return "no queue removed 0"
	}
	if q.nonce == r.Nonce && q.revision == r.Revision+1 {
		return fmt.Sprintf("ok removed %d", q.removed)
	}
	if q.revision != r.Revision {
		return "revision has changed removed 0"
	}
	q.removed = q.here()
	q.nonce = r.Nonce
	q.revision++
	for _, lane := range q.lanes {
		for _, x := range lane {
			if x.here() {
				x.gone("purged")
			}
		}
	}
	for _, k := range q.consumers {
		for _, d := range k.log {
			if d.state == wire.LeaseHeld {
				d.state, d.tell = wire.LeasePurged, true
			}
		}
	}
	return fmt.Sprintf("ok removed %d", q.removed)
}

func (q *modelQueue) counts() map[string]int {
	c := map[string]int{}
	for _, lane := range q.lanes {
		for _, x := range lane {
			c[x.state]++
		}
	}
	return c
}

// timers takes what is due: first in the order that is said, then whatever that left out.
func (e *modelEntry) timers() {
	for _, s := range e.sessions {
		if !s.named && !s.closed && s.active+fsm.SessionExpiry <= e.Now {
			s.closed = true
		}
	}
	for _, o := range e.Served {
		if q := e.live(o.Queue); q != nil {
			e.queueTimers(q)
		} else if q, k := e.consumer(o.Consumer); k != nil && e.consumerEnds(q, k) {
			q.drop(k)
		}
	}
	for _, q := range e.queues {
		e.queueTimers(q)
		q.consumers = slices.DeleteFunc(q.consumers, func(k *modelConsumer) bool { return e.consumerEnds(q, k) })
	}
}

func (e *modelEntry) queueTimers(q *modelQueue) {
	for _, lane := range q.lanes {
		for _, x := range lane {
			e.messageTimers(x)
		}
	}
}

func (q *modelQueue) drop(k *modelConsumer) {
	q.consumers = slices.DeleteFunc(q.consumers, func(x *modelConsumer) bool { return x == k })
}

func (e *modelEntry) consumerEnds(q *modelQueue, k *modelConsumer) bool {
	if q.deleted {
		if k.attached {
			e.lost = append(e.lost, fmt.Sprintf("gone %x/%d", k.id[:4], k.n))
		}
		return true
	}
	if k.pulled > 0 && !k.leaving {
		return e.pullerEnds(q, k)
	}
	if k.leaving || !k.attached && max(k.graceEnd, e.graceMin) <= e.Now {
		for i, d := range k.log {
			if d.state != wire.LeaseHeld {
				continue
			}
			if k.spared[uint64(i+1)] {
				d.state = wire.LeaseReturned
				e.record(d.message)
				e.comeBack(d.message, 0)
				continue
			}
			e.failed(d, wire.LeaseGone, 0)
		}
		return true
	}
	if !k.attached {
		return false
	}
	for i, d := range k.log {
		if d.tell && !d.fell {
			e.lost = append(e.lost, fmt.Sprintf("lost %x/%d #%d purged", k.id[:4], k.n, i+1))
		}
		d.tell = false
		if d.state == wire.LeaseHeld && max(d.deadline, k.resumed) <= e.Now {
			e.failed(d, wire.LeaseExpired, 0)
			e.lost = append(e.lost, fmt.Sprintf("lost %x/%d #%d expired", k.id[:4], k.n, i+1))
		}
	}
	return false
}

// messageTimers takes what is too old, and what has waited long enough.
func (e *modelEntry) messageTimers(x *modelMessage) {
	ttl := x.queue.settings.TTL
	switch {
	case x.milestone != nil && ttl > 0 && x.milestone.start+time.Second+ttl <= e.Now:
		x.gone("expired")
	case x.own && (x.state == "ready" || x.state == "delayed") && x.expires > 0 && x.expires <= e.Now:
		x.gone("expired")
	case x.state == "delayed" && x.due <= e.Now:
		x.state = "ready"
	}
}

// before says who of two consumers is given a message first: who holds less, who
// was ever given less, who came first.
func (k *modelConsumer) before(other *modelConsumer) bool {
	return cmp.Or(cmp.Compare(k.held(), other.held()), cmp.Compare(len(k.log), len(other.log)), cmp.Compare(k.ordinal, other.ordinal)) < 0
}

func (e *modelEntry) assign() {
	for _, p := range e.pulls {
		e.results[p.at] = e.beginPull(p)
	}
	e.handOut()
	for _, p := range slices.Backward(e.pulls) {
		if p.from != nil {
			e.results[p.at] = e.endPull(p)
		}
	}
	e.turnEnds()
}

func (e *modelEntry) handOut() {
	for _, q := range slices.Concat(e.queues[e.from:], e.queues[:e.from]) {
		for {
			x, to := e.next(q)
			if x == nil || to == nil || e.heldBack(x) {
				break
			}
			e.from = e.number(q) % len(e.queues)
			x.state = "leased"
			x.plain(false)
			x.attempts++
			d := &modelDelivery{state: wire.LeaseHeld, message: x, attempt: x.attempts, deadline: e.Now + q.settings.LeaseTime}
			to.log = append(to.log, d)
			if to.pulled > 0 {
				to.want--
				continue
			}
			e.deliver(q, to, uint64(len(to.log)), d)
		}
	}
}

// turnEnds lets the first queue begin again when nothing was held back.
func (e *modelEntry) turnEnds() {
	if !slices.ContainsFunc(e.queues, func(q *modelQueue) bool { x, to := e.next(q); return x != nil && to != nil }) {
		e.from = 0
	}
}

// next returns the message of a queue whose turn it is, and who would be given it.
func (e *modelEntry) next(q *modelQueue) (x *modelMessage, to *modelConsumer) {
	if q.deleted || q.paused {
		return nil, nil
	}
	for lane := len(q.lanes) - 1; lane >= 0 && x == nil; lane-- {
		if i := slices.IndexFunc(q.lanes[lane], (*modelMessage).may); i >= 0 {
			x = q.lanes[lane][i]
		}
	}
	for i, k := range q.consumers {
		room := k.attached && !k.leaving && k.held() < k.credit && len(k.log)+1-int(k.done) < 2*k.credit+fsm.DoneSlack || k.want > 0
		if q.settings.SingleActive && i > 0 {
			room = false
		}
		if room && (to == nil || k.before(to)) {
			to = k
		}
	}
	return x, to
}
