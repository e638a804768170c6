package check

import (
	"slices"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// zombie: once an ack was answered ok, the message is never seen again.
func zombie(v *view, r *Report) {
	for _, m := range v.order {
		for _, a := range m.settles {
			if a.F != history.Ack || a.Type != history.OK {
				continue
			}
			for _, g := range m.grants {
				if a.T1 < v.takenAt(g) {
					r.broken("zombie", m.id, []op{a, g}, "%s's ack of attempt %d was ok, then %s got attempt %d", a.Proc, a.Attempt, g.Proc, g.Attempt)
				}
			}
		}
	}
}

// takenAt is when a delivery was taken up at the earliest. Before a handler begins the
// client looks whether its process stood still, and asks the cluster if it did; so what
// waited in a buffer through a stop is no excuse. What is one is that the look came before
// the stop and the line of the handler after it. The library reads its clock at the look and
// does not tell that; the first clock that a handler can read is read behind the stop. Of
// each of the hands of a consumer it is the first line behind the stop, and no other, and
// none if it was still at the one before when the stop was over. Where the hand is not known
// all that come soon after the stop are excused, see sent.
func (v *view) takenAt(g op) int64 {
	if g.Hand == 0 || slices.ContainsFunc(v.held, func(h op) bool { return holdsBack(h, g) }) {
		return g.T0
	}
	for _, s := range v.stops {
		if v.stopsBefore(s, g) && !v.lookedSince(s, g) {
			return g.T0
		}
	}
	return g.T1
}

// hand is one of the handlers of a consumer that run at once.
type hand struct {
	proc   string
	number int
}

func handOf(g op) hand { return hand{g.Proc, g.Hand} }

// lookedSince says that the look before a delivery was certainly taken up came behind a
// stop: its hand had taken up another one since, or was at another one.
func (v *view) lookedSince(s, g op) bool {
	var last op
	for _, o := range v.hands[handOf(g)] {
		switch {
		case o.I >= g.I:
		case o.T1 >= s.T1:
			return true
		default:
			last = o
		}
	}
	if last.Event == nil {
		return false
	}
	m := v.ids[last.ID]
	return slices.ContainsFunc(slices.Concat(m.settles, m.told), func(o op) bool {
		return o.Proc == g.Proc && o.Attempt == last.Attempt && o.Type != history.Invoke && o.I < g.I && o.T1 >= s.T1
	})
}

// cause says why a message was handed out again: "" when there is no reason.
func (v *view) cause(m *message, earlier, later op) string {
	eps := v.epsilon(earlier.T0, later.T1)
	for _, s := range m.settles {
		if s.F == history.Nack && s.Attempt == earlier.Attempt && s.maybe() && s.T0 < later.T1 {
			return "nack"
		}
	}
	c := v.consumers[earlier.Proc]
	if c != nil {
		for _, e := range c.ends {
			switch {
			case e.how == "left" && e.T0 < later.T1 && e.end() > earlier.T0:
				return "left"
			case e.how == "died" && later.T1 >= e.T0+v.setup.Grace+v.stood(e.T0, later.T1)-eps:
				return "died"
			}
		}
		for _, s := range c.silent {
			until := min(s.T1, later.T1)
			if s.T1 >= earlier.T0 && until-s.T0 >= v.setup.Grace+v.stood(s.T0, until)-eps {
				return "silent"
			}
		}
	}
	if v.holdEnd(m, earlier)+v.stood(earlier.T1, later.T1)-eps <= later.T1 && !(earlier.Alive && v.canExtend(earlier, later.T1)) {
		return "expired"
	}
	return ""
}

// holdEnd is, by a clock that never stands still, until when the lease of a grant lasts at least, if its consumer
// lives and does not settle.
func (v *view) holdEnd(m *message, g op) int64 {
	end := g.T0 + v.setup.Lease
	if g.Hold > 0 {
		end = g.T0 + g.Hold
	}
	for _, s := range m.settles {
		if s.F == history.Extend && s.Type == history.OK && s.Attempt == g.Attempt {
			// It took effect at some time after t0.
			hold := v.setup.Lease
			if s.Hold > 0 {
				hold = s.Hold
			}
			end = max(end, s.T0+hold)
		}
	}
	for _, a := range m.resumed {
		if a.Proc == g.Proc && a.Attempt == g.Attempt {
			end = max(end, a.T0+v.setup.Lease)
		}
	}
	return end
}

// givenUp: only a consumer that the cluster could not reach for the grace time is
// given up, or one that has ended.
func givenUp(v *view, r *Report) {
	var procs []string
	for proc := range v.consumers {
		procs = append(procs, proc)
	}
	slices.Sort(procs)
	for _, proc := range procs {
		c := v.consumers[proc]
		for _, g := range c.gone {
			cause := slices.ContainsFunc(c.ends, func(e ending) bool { return e.T0 <= g.T1 }) || v.neverKnown(proc, g)
			for _, s := range c.silent {
				until := min(s.T1, g.T1)
				cause = cause || until-s.T0 >= v.setup.Grace+v.stood(s.T0, until)-v.epsilon(s.T0, until)
			}
			if !cause {
				r.broken("no-cause", "", []op{g}, "%s was given up, and had heard from the cluster all the time", proc)
			}
		}
	}
}

// neverKnown: the cluster may never have heard of a consumer whose first attach got no
// answer, or knows nothing of one whose first was refused, and takes its second for one of
// a consumer that it gave up long ago.
func (v *view) neverKnown(proc string, gone op) bool {
	asked := false
	for _, a := range v.attaches {
		if a.Proc != proc || a.T0 > gone.T0 {
			continue
		}
		if a.Type == history.OK && a.Text == wire.StatusOK.String() {
			return false
		}
		asked = asked || a.Type != history.OK || a.Text != wire.StatusConsumerGone.String()
	}
	return asked && !slices.ContainsFunc(v.order, func(m *message) bool {
		return slices.ContainsFunc(m.grants, func(g op) bool { return g.Proc == proc })
	})
}

// withoutCause: a leader change or a reconnect is no reason to hand out again.
func withoutCause(v *view, r *Report) {
	givenUp(v, r)
	for _, m := range v.order {
		for i := 1; i < len(m.grants); i++ {
			a, b := m.grants[i-1], m.grants[i]
			if a.Attempt == b.Attempt {
				continue // attempts says so
			}
			if v.cause(m, a, b) == "" {
				r.broken("no-cause", m.id, []op{a, b}, "attempt %d to %s, %.1f s later attempt %d to %s, without a cause", a.Attempt, a.Proc, float64(b.T1-a.T1)/1e9, b.Attempt, b.Proc)
			}
		}
	}
}

// twoHolders: a grant holds from when it is seen until it is settled, its
// lease may be over, or its consumer was cut off for the grace time.
func twoHolders(v *view, r *Report) {
	for _, m := range v.order {
		for i, a := range m.grants {
			for _, b := range m.grants[i+1:] {
				if a.Proc == b.Proc || a.Attempt == b.Attempt {
					continue
				}
				if b.T1 >= a.T1 && b.T1 < v.holds(m, a, b.T1) {
					r.broken("two-holders", m.id, []op{a, b}, "%s held attempt %d until %.3f s at least, %s got attempt %d at %.3f s", a.Proc, a.Attempt, float64(v.holds(m, a, b.T1))/1e9, b.Proc, b.Attempt, float64(b.T1)/1e9)
				}
			}
		}
	}
}

// holds is until when a grant certainly held its message, looked at from later.
func (v *view) holds(m *message, g op, later int64) int64 {
	return v.heldUntil(m, g, v.stood(g.T1, later), v.epsilon(g.T0, later))
}

func (v *view) heldUntil(m *message, g op, stood, eps int64) int64 {
	end := v.holdEnd(m, g) + stood - eps
	for _, s := range m.settles {
		if s.F != history.Extend && s.Attempt == g.Attempt && s.Proc == g.Proc {
			end = min(end, s.T0)
		}
	}
	c := v.consumers[g.Proc]
	if c == nil {
		return end
	}
	for _, e := range c.ends {
		switch {
		case e.end() < g.T0:
		case e.how == "left":
			end = min(end, e.T0)
		default:
			end = min(end, e.T0+v.setup.Grace-eps)
		}
	}
	for _, s := range c.silent {
		if s.T1 >= g.T0 && s.T1-s.T0 >= v.setup.Grace-eps {
			end = min(end, s.T0+v.setup.Grace-eps)
		}
	}
	return end
}

// staleAck: an ack counts only for the newest attempt, and for one.
func staleAck(v *view, r *Report) {
	for _, m := range v.order {
		var first op
		for _, a := range m.settles {
			if a.F != history.Ack || a.Type != history.OK {
				continue
			}
			if first.Event == nil {
				first = a
			} else if first.Attempt != a.Attempt {
				r.broken("stale-ack", m.id, []op{first, a}, "acks of attempt %d and of attempt %d were both ok", first.Attempt, a.Attempt)
			}
			for _, g := range m.grants {
				if g.Attempt > a.Attempt && g.T1 < a.T0 && !m.acked(a.Attempt, g.T1) {
					r.broken("stale-ack", m.id, []op{g, a}, "%s had got attempt %d when %s acked attempt %d, which was ok", g.Proc, g.Attempt, a.Proc, a.Attempt)
				}
			}
		}
	}
}

// acked says that an ack of the attempt was asked for before t, and may have
// counted. The next one is a repeat then.
func (m *message) acked(attempt int, t int64) bool {
	for _, a := range m.settles {
		if a.F == history.Ack && a.Attempt == attempt && a.maybe() && a.T0 < t {
			return true
		}
	}
	return false
}

// attempts: the number was committed before the message was handed out, so it
// counts up by one each time, also for what never arrived.
func attempts(v *view, r *Report) {
	for _, m := range v.order {
		for i, g := range m.grants {
			switch {
			case g.Attempt < 1:
				r.broken("attempts", m.id, []op{g}, "attempt %d", g.Attempt)
			case i == 0 && g.Attempt > 1 && !v.anyEnded(g.T1):
				r.broken("attempts", m.id, []op{g}, "first seen as attempt %d, and no consumer was ever cut off or ended before", g.Attempt)
			case i == 0:
			case m.grants[i-1].Attempt == g.Attempt:
				r.broken("attempts", m.id, []op{m.grants[i-1], g}, "attempt %d was handed out to %s and to %s", g.Attempt, m.grants[i-1].Proc, g.Proc)
			case v.hidden(min(m.grants[0].T0, g.T0), g.T1) < g.Attempt-m.grants[i-1].Attempt-1:
				r.broken("attempts", m.id, []op{m.grants[i-1], g}, "attempt %d to %s follows attempt %d to %s, and no consumer that could have been given one in between was cut off or ended", g.Attempt, g.Proc, m.grants[i-1].Attempt, m.grants[i-1].Proc)
			case m.grants[i-1].T1 > g.T1 && !v.wasSilent(m.grants[i-1].Proc):
				r.broken("attempts", m.id, []op{g, m.grants[i-1]}, "attempt %d was handed out to %s before attempt %d to %s, which was never cut off", g.Attempt, g.Proc, m.grants[i-1].Attempt, m.grants[i-1].Proc)
			}
		}
	}
}

// hidden is how many attempts of one message may have been given to consumers that
// never saw them, between its first delivery and one that comes later: one to each that
// ended, and to one that was cut off one for each time that its lease may have run out.
// Deliveries may arrive in another order than they were made.
func (v *view) hidden(from, to int64) (n int) {
	for _, c := range v.consumers {
		for _, e := range c.ends {
			if e.T0 < to && e.end() > from-v.setup.Grace {
				n++
			}
		}
		for _, s := range c.silent {
			if s.T0 < to && s.T1 > from {
				n += 1 + int((min(s.T1, to)-max(s.T0, from))/max(1, min(v.setup.Grace, v.setup.Lease)))
			}
		}
	}
	return n
}

// anyEnded says that before t a consumer may have been given a message that it
// never saw.
func (v *view) anyEnded(t int64) bool {
	for _, c := range v.consumers {
		for _, e := range c.ends {
			if e.T0 < t {
				return true
			}
		}
		for _, s := range c.silent {
			if s.T0 < t {
				return true
			}
		}
	}
	return false
}

func (v *view) wasSilent(proc string) bool {
	c := v.consumers[proc]
	return c != nil && len(c.silent) > 0
}
