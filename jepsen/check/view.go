package check

import (
	"cmp"
	"math"
	"slices"
	"time"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// never is the end of an operation whose outcome nobody learned.
const never = math.MaxInt64

// op is one operation: the line that completes it, or its invoke when there is
// no other.
type op struct {
	*history.Event
}

// end is when the operation can no longer take effect.
func (o op) end() int64 {
	if o.Type == history.OK || o.Type == history.Fail {
		return o.T1
	}
	return never
}

// maybe says that the operation had its effect or may still have it.
func (o op) maybe() bool { return o.Type != history.Fail }

// message is all that happened to one id.
type message struct {
	id        string
	publishes []op // in the order they were asked for
	kept      []op // by its producer's outbox
	seals     []op
	looks     []op // ok
	grants    []op // by attempt
	dead      []op // seen as a dead letter
	resumed   []op // attaches that were told that they hold it, with the attempt
	settles   []op // acks, nacks and extends, in the order they were asked for
	told      []op // how a handler heard that its lease is lost
}

// confirmed returns the publish that was answered ok first.
func (m *message) confirmed() (op, bool) {
	best, found := op{}, false
	for _, p := range m.publishes {
		if p.Type == history.OK && (!found || p.T1 < best.T1) {
			best, found = p, true
		}
	}
	return best, found
}

// started is when the first copy was asked for.
func (m *message) started() int64 {
	t := int64(never)
	for _, p := range m.publishes {
		t = min(t, p.T0)
	}
	return t
}

// consumer is what the history says of one consumer.
type consumer struct {
	ends   []ending
	silent []op
	gone   []op
}

type ending struct {
	op
	how string // left or died
}

// view is a history sorted by what checkers ask for.
type view struct {
	setup     history.Setup
	ids       map[string]*message
	order     []*message // in the order the first line of each appeared
	consumers map[string]*consumer
	faults    []op
	stalls    []op
	stops     []op // of the processes of clients
	frozen    []op
	passed    []op
	held      []op
	calms     []op
	states    []op
	queues    []op
	drains    []op
	crashes   []op
	gaveUps   []op
	verified  []op
	wentOn    []op
	attaches  []op
	opens     []op // ok
	resents   []op
	admins    []op
	members   []op
	rounds    map[int]*round
	restores  []op
	starts    []op
	sizes     []op
	hands     map[hand][]op // what each hand took, in the order in which it said so
	tidies    []op
	doing     map[string][]int64 // when a client stored something or was handed something, in order
	producers map[string]bool    // clients that publish
	last      int64              // when the last thing happened
}

func newView(events []history.Event) *view {
	v := &view{ids: map[string]*message{}, consumers: map[string]*consumer{}, doing: map[string][]int64{}, hands: map[hand][]op{}, producers: map[string]bool{}}
	finished := map[int]bool{}
	for i := range events {
		if e := &events[i]; e.Type != history.Invoke && e.Of >= 0 {
			finished[e.Of] = true
		}
	}
	for i := range events {
		if e := &events[i]; e.Type != history.Invoke || !finished[e.I] {
			v.add(op{e})
			v.last = max(v.last, e.T0, e.T1)
		}
	}
	for _, times := range v.doing {
		slices.Sort(times)
	}
	for _, s := range v.stops {
		if !v.producers[s.Proc] {
			c := v.consumer(s.Proc) // it could hear nothing
			c.silent = append(c.silent, s)
		}
	}
	for _, a := range v.attaches {
		v.told(a)
	}
	byStart := func(a, b op) int { return cmp.Or(cmp.Compare(a.T0, b.T0), cmp.Compare(a.I, b.I)) }
	for _, m := range v.order {
		for i, g := range m.grants {
			m.grants[i] = v.sent(g)
		}
		slices.SortFunc(m.publishes, byStart)
		slices.SortFunc(m.settles, byStart)
		slices.SortFunc(m.grants, func(a, b op) int {
			return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), byStart(a, b))
		})
	}
	return v
}

func (v *view) add(o op) {
	switch o.F {
	case history.Publish, history.Deliver: // an ack is the end of what was done before
		v.producers[o.Proc] = v.producers[o.Proc] || o.F == history.Publish
		if o.Type == history.OK {
			v.doing[o.Proc] = append(v.doing[o.Proc], o.T1)
		}
	}
	switch o.F {
	case history.Run:
		if o.Setup != nil {
			v.setup = *o.Setup
		}
	case history.Publish:
		m := v.message(o.ID)
		m.publishes = append(m.publishes, o)
	case history.Kept:
		m := v.message(o.ID)
		m.kept = append(m.kept, o)
	case history.Seal:
		m := v.message(o.ID)
		m.seals = append(m.seals, o)
	case history.Look:
		if o.Type == history.OK {
			m := v.message(o.ID)
			m.looks = append(m.looks, o)
		}
	case history.Deliver:
		m := v.message(o.ID)
		m.grants = append(m.grants, o)
		if o.Hand > 0 {
			v.hands[handOf(o)] = append(v.hands[handOf(o)], o)
		}
	case history.Ack, history.Nack, history.Extend:
		m := v.message(o.ID)
		m.settles = append(m.settles, o)
	case history.Leave:
		c := v.consumer(o.Proc)
		c.ends = append(c.ends, ending{o, "left"})
	case history.Die:
		c := v.consumer(o.Proc)
		c.ends = append(c.ends, ending{o, "died"})
	case history.Silent:
		c := v.consumer(o.Proc)
		c.silent = append(c.silent, o)
	case history.Stopped:
		v.stops = append(v.stops, o)
	case history.Told:
		m := v.message(o.ID)
		m.told = append(m.told, o)
	case history.Fault:
		v.faults = append(v.faults, o)
	case history.Stall:
		v.stalls = append(v.stalls, o)
	case history.Held:
		v.held = append(v.held, o)
	case history.Frozen:
		if o.Type == history.OK {
			v.frozen = append(v.frozen, o)
		}
	case history.Passed:
		v.passed = append(v.passed, o)
	case history.Calm:
		v.calms = append(v.calms, o)
	case history.Status:
		if o.State != nil && o.Type == history.OK {
			v.states = append(v.states, o)
		}
	case history.Counts:
		if o.Queue != nil && o.Type == history.OK {
			v.queues = append(v.queues, o)
		}
	case history.Dead:
		m := v.message(o.ID)
		m.dead = append(m.dead, o)
	case history.Attach:
		v.attaches = append(v.attaches, o)
	case history.Open:
		if o.Type == history.OK {
			v.opens = append(v.opens, o)
		}
	case history.Gone:
		c := v.consumer(o.Proc)
		c.gone = append(c.gone, o)
	case history.Resent:
		v.resents = append(v.resents, o)
	case history.Members:
		if o.Type == history.OK {
			v.members = append(v.members, o)
		}
	case history.Admin:
		v.admins = append(v.admins, o)
	case history.Backup, history.Restore, history.Copy, history.Found, history.Emptied:
		v.round(o)
	case history.Crash:
		v.crashes = append(v.crashes, o)
	case history.GaveUp:
		v.gaveUps = append(v.gaveUps, o)
	case history.Verify:
		if o.Type != history.Info {
			v.verified = append(v.verified, o)
		}
	case history.WentOn:
		v.wentOn = append(v.wentOn, o)
	case history.Drain:
		v.drains = append(v.drains, o)
	case history.Started:
		v.starts = append(v.starts, o)
	case history.Sizes:
		if o.Sizes != nil && o.Type == history.OK {
			v.sizes = append(v.sizes, o)
		}
	case history.Tidy:
		v.tidies = append(v.tidies, o)
	}
}

// told notes of which deliveries a consumer heard that it goes on holding them.
func (v *view) told(a op) {
	for _, item := range a.Listed {
		if m := v.ids[item.ID]; m != nil && a.Type == history.OK && item.State == wire.LeaseHeld.String() {
			e := *a.Event
			e.Attempt = item.Attempt
			m.resumed = append(m.resumed, op{&e})
		}
	}
}

func (v *view) message(id string) *message {
	m := v.ids[id]
	if m == nil {
		m = &message{id: id}
		v.ids[id] = m
		v.order = append(v.order, m)
	}
	return m
}

func (v *view) consumer(proc string) *consumer {
	c := v.consumers[proc]
	if c == nil {
		c = &consumer{}
		v.consumers[proc] = c
	}
	return c
}

// drained says that everything was healed and seen empty.
func (v *view) drained() bool {
	return len(v.drains) > 0 && v.drains[len(v.drains)-1].Type == history.OK
}

// epsilon is how much shorter than promised something may look between two
// moments: clock error, and the longest time the harness stood still around
// them, also a little before, since it has to catch up.
func (v *view) epsilon(from, to int64) int64 {
	e := int64(0)
	for _, s := range v.stalls {
		if s.T0 <= to && s.T1+int64(time.Second) >= from {
			e = max(e, s.T1-s.T0)
		}
	}
	return v.setup.Epsilon + e
}

// heldSlack is how long after a stretch in which frames were held the last of
// them may arrive.
const heldSlack = int64(time.Second)

// sent makes a delivery begin when it was sent at the earliest: it may have been
// held on its way, or waited for its consumer's process to go on. The event of the history stays as it is.
func (v *view) sent(g op) op {
	t := g.T0
	for _, h := range v.held {
		if holdsBack(h, g) {
			t = min(t, h.T0)
		}
	}
	for _, s := range v.stops {
		if v.stopsBefore(s, g) {
			t = min(t, s.T0)
		}
	}
	if t == g.T0 {
		return g
	}
	e := *g.Event
	e.T0 = t
	return op{&e}
}

// holdsBack says that a delivery may have been among the frames that were held.
func holdsBack(h, g op) bool { return h.T0 <= g.T1 && g.T1 <= h.T1+heldSlack }

// stopsBefore says that a delivery may have been seen late because its consumer's process
// was stopped.
func (v *view) stopsBefore(s, g op) bool {
	return s.Proc == g.Proc && s.T0 <= g.T1 && g.T1 <= s.T1+heldSlack+v.stalled(s.T1, g.T1)
}

// frozenMost is what a stretch in which every node stood still may cost.
const frozenMost = int64(time.Second)

// stood is by how much cluster time must have stayed behind between two moments.
func (v *view) stood(from, to int64) int64 {
	sum := int64(0)
	for _, f := range v.frozen {
		sum += max(0, min(f.T1, to)-max(f.T0, from)-frozenMost)
	}
	return sum
}

// Stats counts what a history holds.
type Stats struct {
	Messages   int            `json:"messages"`
	Publishes  map[string]int `json:"publishes"` // by type
	Duplicates int            `json:"duplicates"`
	Compared   int            `json:"compared"`              // times that something was handed out, and how it was published is known
	KeysPassed int            `json:"keys_passed,omitempty"` // handed out behind one of their ordering key that was given up
	KeysMoved  int            `json:"keys_moved,omitempty"`  // pairs of one ordering key sent back to work one after the other
	Recovered  int            `json:"recovered"`             // handed out although no publish was confirmed
	Deliveries int            `json:"deliveries"`
	Again      map[string]int `json:"again"` // redeliveries, by cause
	Acks       map[string]int `json:"acks"`  // by type
	Nacks      int            `json:"nacks"`
	Seals      map[string]int `json:"seals"`
	Faults     map[string]int `json:"faults"` // whose effect was seen, by kind
	Unseen     map[string]int `json:"faults_unseen,omitempty"`
	LongestGap float64        `json:"longest_gap_seconds"`
	Stops      map[string]int `json:"stops,omitempty"` // of the processes of clients, and what came of them
	// Stalls are by kind of fault.
	Stalls map[string]Stall `json:"stalls,omitempty"`
}

func (v *view) stats() Stats {
	s := Stats{Messages: len(v.order), Publishes: map[string]int{}, Again: map[string]int{}, Acks: map[string]int{}, Seals: map[string]int{}, Faults: map[string]int{}, Unseen: map[string]int{}}
	var oks []int64
	for _, m := range v.order {
		for _, p := range m.publishes {
			s.Publishes[string(p.Type)]++
			if p.Type == history.OK {
				if len(v.drains) == 0 || p.T1 < v.drains[0].T0 {
					oks = append(oks, p.T1) // afterwards nobody publishes on purpose
				}
				if p.Dup {
					s.Duplicates++
				}
			}
		}
		if _, ok := m.confirmed(); !ok && len(m.grants) > 0 {
			s.Recovered++
		}
		s.Deliveries += len(m.grants)
		for i := 1; i < len(m.grants); i++ {
			s.Again[v.cause(m, m.grants[i-1], m.grants[i])]++
		}
		for _, x := range m.settles {
			switch x.F {
			case history.Ack:
				s.Acks[string(x.Type)]++
			case history.Nack:
				s.Nacks++
			}
		}
		for _, x := range m.seals {
			s.Seals[string(x.Type)+" "+x.Text]++
		}
	}
	for _, f := range v.faults {
		if f.Seen {
			s.Faults[faultKind(f)]++
		} else {
			s.Unseen[f.Key]++
		}
	}
	slices.Sort(oks)
	for i := 1; i < len(oks); i++ {
		s.LongestGap = max(s.LongestGap, time.Duration(oks[i]-oks[i-1]).Seconds())
	}
	s.Stalls = v.stallsBy(oks)
	v.compare(func(op, op) { s.Compared++ })
	s.KeysPassed, s.KeysMoved = v.keysOf()
	if len(v.stops) > 0 {
		s.Stops = v.stopsOf()
	}
	return s
}
