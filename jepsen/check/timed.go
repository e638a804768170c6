package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// early: what is kept back, by its publish or by a nack, comes when its time is
// over and not before.
func early(v *view, r *Report) {
	for _, m := range v.order {
		due := m.due()
		for i, g := range m.grants {
			if due > 0 && g.T1 < due-v.epsilon(m.started(), g.T1) {
				r.broken("early", m.id, []op{m.publishes[0], g}, "%s got it %.3f s before its time", g.Proc, float64(due-g.T1)/1e9)
				break
			}
			if i == 0 || m.grants[i-1].Attempt != g.Attempt-1 {
				continue
			}
			n, ok := m.nacked(g.Attempt - 1)
			if ok && n.Delay > 0 && g.T1 < n.T0+n.Delay-v.epsilon(n.T0, g.T1) && !v.redrivenWithin(n.T0, g.T1) {
				r.broken("early", m.id, []op{n, g}, "given back for %.3f s, and %s got it after %.3f s", float64(n.Delay)/1e9, g.Proc, float64(g.T1-n.T0)/1e9)
				break
			}
		}
	}
}

// due is the earliest moment at which the message may be handed out, 0 when it
// was not kept back.
func (m *message) due() int64 {
	least := int64(0)
	for _, p := range m.publishes {
		if t := p.T0 + p.Delay; least == 0 || t < least {
			least = t
		}
		if p.Delay == 0 {
			return 0
		}
	}
	return least
}

// nacked is the nack of an attempt that was answered ok.
func (m *message) nacked(attempt int) (op, bool) {
	for _, s := range m.settles {
		if s.F == history.Nack && s.Type == history.OK && s.Attempt == attempt {
			return s, true
		}
	}
	return op{}, false
}

// priority: of what is ready the highest goes first. Which of two consumers was
// served first cannot be seen from outside, so each is looked at by itself: what
// it got for the first time was not there before something higher that it got for
// the first time afterwards.
func priority(v *view, r *Report) {
	streams := map[string][]op{}
	var procs []string
	for _, m := range v.order {
		if m.orderingKey() != "" || len(m.publishes) == 0 || m.publishes[0].Delay > 0 {
			continue
		}
		for _, g := range m.grants {
			if g.Attempt == 1 {
				if streams[g.Proc] == nil {
					procs = append(procs, g.Proc)
				}
				streams[g.Proc] = append(streams[g.Proc], g)
			}
		}
	}
	slices.Sort(procs)
	for _, proc := range procs {
		inStream(v, streams[proc], r)
	}
}

// inStream walks a consumer's deliveries backwards and keeps for each lane the
// message that was confirmed first among those still to come.
func inStream(v *view, all []op, r *Report) {
	slices.SortFunc(all, func(a, b op) int { return cmp.Compare(b.I, a.I) })
	type coming struct {
		grant, publish op
	}
	later := map[int]coming{}
	for _, g := range all {
		m := v.ids[g.ID]
		for lane, c := range later {
			if lane > g.Lane && c.grant.Key == g.Key && c.publish.T1 < m.started() {
				r.broken("priority", m.id, []op{c.publish, m.publishes[0], g, c.grant}, "%s, of priority %d, was there before %s, of priority %d, was published, and %s got it afterwards", c.grant.ID, lane, m.id, g.Lane, g.Proc)
				return
			}
		}
		p, ok := m.confirmed()
		if c, known := later[g.Lane]; ok && (!known || p.T1 < c.publish.T1) {
			later[g.Lane] = coming{g, p}
		}
	}
}
