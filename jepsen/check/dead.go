package check

import (
	"slices"

	"onceq/jepsen/history"
)

// limitReached is the reason of a dead letter that failed too often.
const limitReached = "delivery limit reached"

// dead: a message becomes a dead letter when as many of its attempts have failed as
// its queue allows, or when it was rejected: not before, not later, once and for
// good. What has vanished on the way is lost, see there.
func dead(v *view, r *Report) {
	for _, m := range v.order {
		for _, d := range m.dead {
			if first := m.dead[0]; first.Place() != d.Place() {
				r.broken("dead", m.id, []op{first, d}, "it is a dead letter twice, at offset %v and at %v", first.Place(), d.Place())
				break
			}
		}
		if len(m.dead) > 0 {
			buried(v, m, r)
		}
		overdue(v, m, r)
	}
}

// buried looks at what a dead letter has behind it.
func buried(v *view, m *message, r *Report) {
	d := m.dead[0]
	switch {
	case d.Text == limitReached && d.Attempt < v.setup.Limit:
		r.broken("dead", m.id, []op{d}, "it is a dead letter after %d attempts, and %d may fail", d.Attempt, v.setup.Limit)
	case d.Text == history.Rejected && !slices.ContainsFunc(m.settles, func(s op) bool { return s.rejects() && s.maybe() && s.T0 <= d.T1 }):
		r.broken("dead", m.id, []op{d}, "it is a dead letter as rejected, and nobody has rejected it")
	}
	for _, g := range m.grants {
		if g.T0 > d.T1 {
			r.broken("dead", m.id, []op{d, g}, "it had come out of the dead-letter queue, and %s got attempt %d", g.Proc, g.Attempt)
		}
	}
	for _, s := range m.settles {
		if s.F == history.Ack && s.Type == history.OK {
			r.broken("dead", m.id, []op{s, d}, "%s's ack of attempt %d was ok, and it is a dead letter", s.Proc, s.Attempt)
		}
	}
}

// overdue looks for deliveries of what should be a dead letter.
func overdue(v *view, m *message, r *Report) {
	for _, g := range m.grants {
		failed := map[int]bool{}
		var seen []op
		rejected := false
		for _, s := range m.settles {
			if s.F == history.Nack && s.Type == history.OK && s.T1 < g.T0 && !v.redrivenWithin(s.T0, g.T1) {
				failed[s.Attempt] = true
				rejected = rejected || s.rejects()
				seen = append(seen, s)
			}
		}
		if rejected || v.setup.Limit > 0 && len(failed) >= v.setup.Limit {
			r.broken("dead", m.id, append(seen, g), "%d of its attempts had failed (rejected: %v), %d may, and %s got attempt %d", len(failed), rejected, v.setup.Limit, g.Proc, g.Attempt)
			return
		}
	}
}

// redrivenWithin says that what had failed may have been sent back to work in between,
// with its failures counted from zero.
//
// One without an answer goes on at the leader for as long as its last step takes.
func (v *view) redrivenWithin(from, to int64) bool {
	return slices.ContainsFunc(v.admins, func(a op) bool {
		end := a.T1
		if a.Type != history.OK {
			end = a.T0 + redriveMost
		}
		return a.Text == history.Redrive && a.maybe() && a.T0 < to && end > from
	})
}

// redriveMost is far above the time after which an operator does not wait for a redrive
// any more.
const redriveMost = int64(60e9)

func (o op) rejects() bool { return o.F == history.Nack && o.Text == history.Rejected }
