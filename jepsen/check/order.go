package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// stored is one id with its place and the time in which it was stored.
type stored struct {
	m          *message
	p          op    // the publish that told the place
	start, end int64 // stored between these
}

// reordered compares the order of offsets with the order of time, and within a
// producer with the order in which it handed in; and looks at each consumer's
// first deliveries.
func reordered(v *view, r *Report) {
	byLane := map[lane][]stored{}
	var lanes []lane
	for _, m := range v.order {
		if p, ok := m.confirmed(); ok {
			l := laneOf(p)
			if byLane[l] == nil {
				lanes = append(lanes, l)
			}
			byLane[l] = append(byLane[l], stored{m, p, m.started(), p.T1})
		}
	}
	for _, l := range lanes {
		inTime(byLane[l], r)
		if v.setup.ProducerOrder && !v.setup.Older {
			inProducer(byLane[l], r)
		}
	}
	afterwards(v, r)
	firstDeliveries(v, r)
}

// lane is what has one row of offsets.
type lane struct {
	key    string
	number uint64
	lane   int
}

func laneOf(o op) lane { return lane{o.Key, o.Number, o.Lane} }

// afterwards: what names another id in After is stored behind it; or that one is
// never stored, then behind the one that it has named itself.
func afterwards(v *view, r *Report) {
	for _, m := range v.order {
		for _, p := range m.publishes {
			if p.Type != history.OK {
				continue
			}
			if e, ok := v.before(p); ok && laneOf(e) == laneOf(p) && e.Seq > p.Seq {
				r.broken("reordered", m.id, []op{e, p}, "%s was to come after %s, and they are at %d and %d", m.id, e.ID, p.Seq, e.Seq)
				break
			}
		}
	}
}

// before is the nearest of those that p was to come after, one named by the other,
// that is stored.
func (v *view) before(p op) (op, bool) {
	for range v.order { // so that names in a circle end
		m := v.ids[p.After]
		if p.After == "" || m == nil {
			break
		}
		if e, ok := m.placed(); ok || v.setup.Older || len(m.publishes) == 0 {
			return e, ok
		}
		p = m.publishes[0]
	}
	return op{}, false
}

// placed is an event that tells where the message is stored.
func (m *message) placed() (op, bool) {
	if p, ok := m.confirmed(); ok {
		return p, true
	}
	if len(m.grants) > 0 {
		return m.grants[0], true
	}
	return op{}, false
}

// inTime: what ended before another began has the lower offset. In the order of
// starts, the highest offset among all that had ended before must be lower.
func inTime(all []stored, r *Report) {
	starts, ends := slices.Clone(all), slices.Clone(all)
	slices.SortFunc(starts, func(a, b stored) int { return cmp.Compare(a.start, b.start) })
	slices.SortFunc(ends, func(a, b stored) int { return cmp.Compare(a.end, b.end) })
	ended := 0
	var highest stored
	for _, s := range starts {
		for ended < len(ends) && ends[ended].end < s.start {
			if highest.m == nil || ends[ended].p.Seq > highest.p.Seq {
				highest = ends[ended]
			}
			ended++
		}
		if highest.m != nil && highest.p.Seq > s.p.Seq {
			r.broken("reordered", s.m.id, []op{highest.p, s.p}, "%s was confirmed at offset %d before %s was published, which is at %d", highest.m.id, highest.p.Seq, s.m.id, s.p.Seq)
		}
	}
}

// inProducer: pipelined publishes of one producer keep their order.
func inProducer(all []stored, r *Report) {
	highest := map[string]stored{}
	// What is kept back comes out when its time is over, wherever it is stored.
	ordered := slices.DeleteFunc(slices.Clone(all), func(s stored) bool { return s.p.Delay > 0 })
	slices.SortFunc(ordered, func(a, b stored) int { return cmp.Compare(a.m.publishes[0].Of, b.m.publishes[0].Of) })
	for _, s := range ordered {
		h, ok := highest[s.p.Proc]
		if ok && h.p.Seq > s.p.Seq {
			r.broken("reordered", s.m.id, []op{h.p, s.p}, "%s handed in %s before %s, and their offsets are %d and %d", s.p.Proc, h.m.id, s.m.id, h.p.Seq, s.p.Seq)
			continue
		}
		highest[s.p.Proc] = s
	}
}

// firstDeliveries: a consumer is handed what nobody has seen before in the order
// of the queue, or of its ordering key, apart from what was kept back. How the deliveries of two consumers relate cannot be seen
// from outside.
func firstDeliveries(v *view, r *Report) {
	type stream struct {
		proc, ordering string
		lane           lane
	}
	var firsts []op
	for _, m := range v.order {
		if slices.ContainsFunc(m.publishes, func(p op) bool { return p.Delay > 0 }) {
			continue
		}
		for _, g := range m.grants {
			// Handlers that run at one time say so in any order.
			if g.Attempt == 1 && (!g.Alive || g.Alone) {
				firsts = append(firsts, g)
			}
		}
	}
	slices.SortFunc(firsts, func(a, b op) int { return cmp.Compare(a.I, b.I) })
	newest := map[stream]op{}
	for _, g := range firsts {
		s := stream{g.Proc, v.ids[g.ID].orderingKey(), laneOf(g)}
		if last, ok := newest[s]; ok && last.F == history.Deliver && last.Seq > g.Seq {
			r.broken("reordered", g.ID, []op{last, g}, "%s got offset %d before offset %d, both for the first time", g.Proc, last.Seq, g.Seq)
			continue
		}
		newest[s] = g
	}
}
