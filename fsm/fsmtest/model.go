package fsmtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
)

// Model is the queue machine again, slow and obvious: every message is a
// struct in a list, nothing is cached, indexed or incremental, and each step
// walks through everything. It has no budgets and no caps; run it against a
// machine whose limits the test does not reach.
type Model struct {
	Now      time.Duration
	sessions []*modelSession
	queues   []*modelQueue // deleted ones stay, so that leases on them are found
	graceMin time.Duration
	holds    int
	leaders  int
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
	checksum uint64
	queue    int
	first    int
	count    int
}

type modelQueue struct {
	deleted     bool
	name        string
	settings    wire.QueueSettings
	revision    uint64
	purgeNonce  wire.Nonce
	purgeResult uint64
	messages    []*modelMessage
	consumers   []*modelConsumer // in the order of their first attach
}

// modelMessage.state is ready, leased, delayed, acked or purged.
type modelMessage struct {
	state    string
	attempts int
	due      time.Duration
}

type modelConsumer struct {
	id       wire.ConsumerID
	ordinal  int
	n        uint64
	attached bool
	credit   int
	resumed  time.Duration // no lease ends before it
	graceEnd time.Duration
	leaving  bool
	done     uint64
	log      []*modelDelivery // number 1 first; never shortened
}

type modelDelivery struct {
	state    wire.LeaseState
	message  *modelMessage
	offset   int
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
	case wire.QueueCreate:
		return e.create(r)
	case wire.QueueDelete:
		return e.deleteQueue(r)
	case wire.QueuePurge:
		return e.purge(r)
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
	case s == nil:
		s = &modelSession{named: r.Named, name: name, nonce: r.Nonce, epoch: 1, floor: 1, outcomes: map[uint64]modelOutcome{}}
		e.sessions = append(e.sessions, s)
		number = len(e.sessions)
	case s.nonce == r.Nonce:
	case s.epoch != r.ExpectedEpoch:
		return fmt.Sprintf("epoch mismatch %d", s.epoch)
	default:
		s.epoch, s.nonce = s.epoch+1, r.Nonce
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
		if r.Floor > s.floor {
			s.floor = r.Floor
			for seq := range s.outcomes {
				if seq < s.floor {
					delete(s.outcomes, seq)
				}
			}
		}
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

func (e *modelEntry) judge(s *modelSession, queue string, p wire.Publish) string {
	if p.Sequence < s.floor {
		return "below floor"
	}
	if p.Sequence >= s.floor+fsm.SessionWindow {
		return "window full"
	}
	if o, ok := s.outcomes[p.Sequence]; ok {
		if !o.sealed && o.checksum != p.Checksum {
			return "body differs"
		}
		return o.String() + map[bool]string{false: " duplicate", true: ""}[o.sealed]
	}
	if _, ok := s.outcomes[p.After]; p.After >= s.floor && !ok {
		return "out of order"
	}
	number, q := e.queue(queue)
	if q == nil {
		return "no queue"
	}
	c := q.counts()
	if held := c["ready"] + c["leased"] + c["delayed"]; q.settings.LengthMax > 0 && uint64(held+len(p.Messages)) > q.settings.LengthMax {
		return "queue full"
	}
	o := modelOutcome{checksum: p.Checksum, queue: number, first: len(q.messages), count: len(p.Messages)}
	for range p.Messages {
		q.messages = append(q.messages, &modelMessage{state: "ready"})
	}
	s.outcomes[p.Sequence] = o
	s.highest = max(s.highest, p.Sequence)
	return o.String()
}

func (o modelOutcome) String() string {
	if o.sealed {
		return "sealed"
	}
	return fmt.Sprintf("ok q%d/%d+%d", o.queue, o.first, o.count)
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
		ordinal := 0
		for _, x := range e.queues {
			for _, c := range x.consumers {
				ordinal = max(ordinal, c.ordinal)
			}
		}
		k = &modelConsumer{id: r.Consumer, ordinal: ordinal + 1, done: 1}
		q.consumers = append(q.consumers, k)
		owner = q
	}
	switch {
	case k.leaving || owner != q:
		return "consumer gone"
	case r.N < k.n || r.N == k.n && !k.attached:
		return "stale"
	}
	again := r.N == k.n
	if !again {
		k.n, k.attached, k.credit = r.N, true, int(r.Credit)
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
	e.deliveries = append(e.deliveries, fmt.Sprintf("-> %x/%d #%d q%d/%d attempt %d until %v",
		k.id[:4], k.n, n, e.number(q), d.offset, d.attempt, max(d.deadline, k.resumed)))
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
					d.state, d.message.state = wire.LeaseAcked, "acked"
				case wire.VerbNack:
					d.giveBack(wire.LeaseNacked)
					if it.Time > 0 {
						d.message.state, d.message.due = "delayed", e.Now+it.Time
					}
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

func (d *modelDelivery) giveBack(why wire.LeaseState) {
	d.state, d.message.state = why, "ready"
}

func (e *modelEntry) create(r wire.QueueCreate) string {
	want := r.Settings
	if want.LeaseTime == 0 {
		want.LeaseTime = fsm.LeaseTimeDefault
	}
	number, q := e.queue(r.Name)
	if q == nil {
		q = &modelQueue{name: r.Name, settings: want, revision: 1}
		e.queues = append(e.queues, q)
		number = len(e.queues)
	}
	if q.settings != want {
		return "conflict"
	}
	return fmt.Sprintf("ok q%d", number)
}

func (e *modelEntry) deleteQueue(r wire.QueueDelete) string {
	if r.Number == 0 || r.Number > uint64(len(e.queues)) {
		return "no queue removed 0"
	}
	q := e.queues[r.Number-1]
	if q.deleted {
		return "ok removed 0"
	}
	q.deleted = true
	c := q.counts()
	for _, k := range q.consumers {
		for _, d := range k.log {
			if d.state == wire.LeaseHeld || d.tell {
				d.state, d.tell = wire.LeaseDeleted, false
			}
		}
	}
	return fmt.Sprintf("ok removed %d", c["ready"]+c["leased"]+c["delayed"])
}

func (e *modelEntry) purge(r wire.QueuePurge) string {
	if r.Number == 0 || r.Number > uint64(len(e.queues)) || e.queues[r.Number-1].deleted {
		return "no queue removed 0"
	}
	q := e.queues[r.Number-1]
	if q.purgeNonce == r.Nonce && q.revision == r.Revision+1 {
		return fmt.Sprintf("ok removed %d", q.purgeResult)
	}
	if q.revision != r.Revision {
		return "revision has changed removed 0"
	}
	c := q.counts()
	q.purgeResult = uint64(c["ready"] + c["leased"] + c["delayed"])
	q.purgeNonce = r.Nonce
	q.revision++
	for _, msg := range q.messages {
		if msg.state != "acked" {
			msg.state = "purged"
		}
	}
	for _, k := range q.consumers {
		for _, d := range k.log {
			if d.state == wire.LeaseHeld {
				d.state, d.tell = wire.LeasePurged, true
			}
		}
	}
	return fmt.Sprintf("ok removed %d", q.purgeResult)
}

func (q *modelQueue) counts() map[string]int {
	c := map[string]int{}
	for _, msg := range q.messages {
		c[msg.state]++
	}
	return c
}

// timers takes what is due, in no particular order: without a budget the order
// makes no difference.
func (e *modelEntry) timers() {
	for _, s := range e.sessions {
		if !s.named && !s.closed && s.active+fsm.SessionExpiry <= e.Now {
			s.closed = true
		}
	}
	for _, q := range e.queues {
		for _, msg := range q.messages {
			if msg.state == "delayed" && msg.due <= e.Now {
				msg.state = "ready"
			}
		}
		q.consumers = slices.DeleteFunc(q.consumers, func(k *modelConsumer) bool { return e.consumerEnds(q, k) })
	}
}

func (e *modelEntry) consumerEnds(q *modelQueue, k *modelConsumer) bool {
	if q.deleted {
		if k.attached {
			e.lost = append(e.lost, fmt.Sprintf("gone %x/%d", k.id[:4], k.n))
		}
		return true
	}
	if k.leaving || !k.attached && max(k.graceEnd, e.graceMin) <= e.Now {
		for _, d := range k.log {
			if d.state == wire.LeaseHeld && d.message.state == "leased" {
				d.giveBack(wire.LeaseGone)
			}
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
		if d.state == wire.LeaseHeld && d.message.state == "leased" && max(d.deadline, k.resumed) <= e.Now {
			d.giveBack(wire.LeaseExpired)
			e.lost = append(e.lost, fmt.Sprintf("lost %x/%d #%d expired", k.id[:4], k.n, i+1))
		}
	}
	return false
}

func (e *modelEntry) assign() {
	for _, q := range e.queues {
		for !q.deleted {
			offset := slices.IndexFunc(q.messages, func(msg *modelMessage) bool { return msg.state == "ready" })
			var to *modelConsumer
			for _, k := range q.consumers {
				room := k.attached && !k.leaving && k.held() < k.credit && len(k.log)+1-int(k.done) < 2*k.credit
				if room && (to == nil || k.held() < to.held() || k.held() == to.held() && k.ordinal < to.ordinal) {
					to = k
				}
			}
			if offset < 0 || to == nil {
				break
			}
			msg := q.messages[offset]
			msg.attempts++
			msg.state = "leased"
			d := &modelDelivery{state: wire.LeaseHeld, message: msg, offset: offset, attempt: msg.attempts, deadline: e.Now + q.settings.LeaseTime}
			to.log = append(to.log, d)
			e.deliver(q, to, uint64(len(to.log)), d)
		}
	}
}
