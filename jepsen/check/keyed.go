package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// stay is a message in one place. It has another when it was given up there, as a dead
// letter, and was sent back to work.
type stay struct {
	m      *message
	at     op   // tells the place
	before int  // attempts that it had when it came there, at least
	grants []op // by attempt
	next   *stay
}

// keyRow is what has one ordering key, by place.
type keyRow struct {
	key   string
	stays []*stay
}

// keyOrder: of the messages with one ordering key one is handed out at a time, in
// the order in which they are stored, across redelivery and whoever gets them. A
// message is out of the way of the next when it is acked, given up, removed or too old,
// so one of these must at least have been possible before the next is seen. What was
// given up and is sent back to work keeps its place, or goes to the end in the order in
// which that happened.
func keyOrder(v *view, r *Report) {
	for _, k := range v.keyRows() {
		inKey(v, k, r)
		oneOfKey(v, k, r)
	}
	v.movedPairs(func(a, b *stay) {
		if a.next.at.Seq > b.next.at.Seq {
			r.broken("key-order", b.m.id, []op{a.grants[len(a.grants)-1], b.grants[len(b.grants)-1], a.next.at, b.next.at},
				"%s and %s (key %s) were given up one after the other, and sent back to offsets %d and %d", a.m.id, b.m.id, a.m.orderingKey(), a.next.at.Seq, b.next.at.Seq)
		}
	})
}

func (v *view) keyRows() []*keyRow {
	type row struct {
		lane lane
		key  string
	}
	rows := map[row]*keyRow{}
	var order []*keyRow
	for _, m := range v.order {
		key := m.orderingKey()
		if key == "" {
			continue
		}
		for _, s := range m.stays() {
			k := row{laneOf(s.at), key}
			if rows[k] == nil {
				rows[k] = &keyRow{key: key}
				order = append(order, rows[k])
			}
			rows[k].stays = append(rows[k].stays, s)
		}
	}
	for _, k := range order {
		slices.SortStableFunc(k.stays, func(a, b *stay) int { return cmp.Compare(a.at.Seq, b.at.Seq) })
	}
	return order
}

func (m *message) orderingKey() string {
	if len(m.publishes) == 0 {
		return ""
	}
	return m.publishes[0].OrderingKey
}

// stays are the places of a message that are known, in the order in which it had them.
func (m *message) stays() (all []*stay) {
	if p, ok := m.confirmed(); ok {
		all = append(all, &stay{m: m, at: p})
	}
	attempts := 0
	for _, g := range m.grants {
		if n := len(all); n == 0 || laneOf(all[n-1].at) != laneOf(g) || all[n-1].at.Seq != g.Seq {
			s := &stay{m: m, at: g, before: attempts}
			if n > 0 {
				all[n-1].next = s
			}
			all = append(all, s)
		}
		s := all[len(all)-1]
		s.grants = append(s.grants, g)
		attempts = g.Attempt
	}
	return all
}

// inKey walks along a key and keeps, of all that came before, the one that was
// done last.
func inKey(v *view, k *keyRow, r *Report) {
	var slowest *stay
	done := int64(-1)
	for _, s := range k.stays {
		for _, g := range s.grants {
			if slowest != nil && slowest.m != s.m && g.T1 < done {
				seen := append([]op{slowest.at}, slowest.grants...)
				r.broken("key-order", s.m.id, append(seen, g), "%s got it (key %s, offset %d) while %s, at offset %d, was not done", g.Proc, k.key, g.Seq, slowest.m.id, slowest.at.Seq)
				break
			}
		}
		if t := v.doneAt(s); t > done {
			slowest, done = s, t
		}
	}
}

// oneOfKey: whatever their places, two of one key are not held at one time.
func oneOfKey(v *view, k *keyRow, r *Report) {
	type holding struct {
		m  *message
		op op
		to int64
	}
	var all []holding
	for _, s := range k.stays {
		for _, g := range s.grants {
			all = append(all, holding{s.m, g, min(v.surelyHeld(s.m, g), v.removedAt(s.m))})
		}
	}
	slices.SortFunc(all, func(a, b holding) int { return cmp.Or(cmp.Compare(a.op.T1, b.op.T1), cmp.Compare(a.op.I, b.op.I)) })
	var longest holding
	for _, h := range all {
		if longest.m != nil && longest.m != h.m && h.op.T1 < min(longest.to, h.to) {
			r.broken("key-order", h.m.id, []op{longest.op, h.op}, "%s got it (key %s, offset %d) while %s held %s, at offset %d", h.op.Proc, k.key, h.op.Seq, longest.op.Proc, longest.m.id, longest.op.Seq)
			return
		}
		if h.to > longest.to {
			longest = h
		}
	}
}

// surelyHeld is until when a grant held its message, whatever is not known of the time
// afterwards.
func (v *view) surelyHeld(m *message, g op) int64 {
	return v.heldUntil(m, g, 0, v.epsilon(g.T0, v.last))
}

// doneAt is the earliest moment at which the message may have been out of the way in
// its place.
func (v *view) doneAt(s *stay) int64 {
	t := v.removedAt(s.m)
	for _, x := range s.m.settles {
		if x.maybe() && (x.F == history.Ack || x.rejects() && x.Attempt > s.before) {
			t = min(t, x.T0)
		}
	}
	if v.setup.Limit == 0 {
		return t
	}
	if len(s.grants) == 0 && v.mayBeGivenUp(s, s.before, s.next) {
		return min(t, s.at.T0)
	}
	for i, g := range s.grants {
		next := s.next
		if i+1 < len(s.grants) {
			next = &stay{grants: s.grants[i+1:]} // it may have been parked in between, and sent back to its place
		}
		if v.mayBeGivenUp(s, g.Attempt, next) {
			t = min(t, v.surelyHeld(s.m, g))
		}
	}
	return t
}

// mayBeGivenUp says whether as many attempts as its queue allows may have failed in this
// place before what was seen next: who has missed one is not known, how many there were is.
func (v *view) mayBeGivenUp(s *stay, seen int, next *stay) bool {
	switch {
	case next != nil:
		return next.grants[0].Attempt-1-s.before >= v.setup.Limit
	case len(s.m.dead) > 0:
		return max(seen, s.m.dead[0].Attempt)-s.before >= v.setup.Limit
	}
	return true
}

// removedAt is the earliest moment at which a command may have removed the message, or it
// may have been too old.
func (v *view) removedAt(m *message) int64 {
	t := m.tooOldAt()
	for _, a := range v.admins {
		if a.maybe() && a.end() >= m.started() && removes(a, m) {
			t = min(t, a.T0)
		}
	}
	return t
}

// movedPairs calls each for two messages of a key of which the first was a dead letter
// for certain before the second can have been one, and both were sent back to work.
func (v *view) movedPairs(each func(a, b *stay)) {
	for _, k := range v.keyRows() {
		moved := slices.DeleteFunc(slices.Clone(k.stays), func(s *stay) bool { return s.next == nil || len(s.grants) == 0 })
		var from []int64 // when each can have been given up
		for _, s := range moved {
			from = append(from, v.surelyHeld(s.m, s.grants[len(s.grants)-1]))
		}
		for _, a := range moved {
			by, sure := a.givenUpBy()
			if !sure {
				continue
			}
			for i, b := range moved {
				if a.m != b.m && by < from[i] {
					each(a, b)
				}
			}
		}
	}
}

// givenUpBy is when a message had failed for the last time in its place. What was parked
// there instead of moved is handed out there again before it moves.
func (s *stay) givenUpBy() (int64, bool) {
	last := s.grants[len(s.grants)-1]
	n, ok := s.m.nacked(last.Attempt)
	if !ok || s.next.grants[0].Attempt != last.Attempt+1 {
		return 0, false
	}
	return n.T1, true
}

// keysOf counts what there was to judge of keys whose messages are given up.
func (v *view) keysOf() (passed, moved int) {
	for _, k := range v.keyRows() {
		open := int64(never) // since when something is given up that another comes behind
		for _, s := range k.stays {
			if slices.ContainsFunc(s.grants, func(g op) bool { return g.T1 > open }) {
				passed++
				open = never
			}
			if n := len(s.grants); n > 0 && (s.next != nil || len(s.m.dead) > 0) {
				open = min(open, s.grants[n-1].T1)
			}
		}
	}
	v.movedPairs(func(_, _ *stay) { moved++ })
	return passed, moved
}
