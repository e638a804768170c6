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
	byKey := map[string][]stored{}
	for _, m := range v.order {
		if p, ok := m.confirmed(); ok {
			byKey[p.Key] = append(byKey[p.Key], stored{m, p, m.started(), p.T1})
		}
	}
	keys := make([]string, 0, len(byKey))
	for k := range byKey {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		inTime(byKey[k], r)
		if v.setup.ProducerOrder {
			inProducer(byKey[k], r)
		}
	}
	firstDeliveries(v, r)
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
	ordered := slices.Clone(all)
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
// of the queue. How the deliveries of two consumers relate cannot be seen
// from outside.
func firstDeliveries(v *view, r *Report) {
	type stream struct{ proc, key string }
	var firsts []op
	for _, m := range v.order {
		for _, g := range m.grants {
			if g.Attempt == 1 {
				firsts = append(firsts, g)
			}
		}
	}
	slices.SortFunc(firsts, func(a, b op) int { return cmp.Compare(a.I, b.I) })
	newest := map[stream]op{}
	for _, g := range firsts {
		s := stream{g.Proc, g.Key}
		if last, ok := newest[s]; ok && last.F == history.Deliver && last.Seq > g.Seq {
			r.broken("reordered", g.ID, []op{last, g}, "%s got offset %d before offset %d, both for the first time", g.Proc, last.Seq, g.Seq)
			continue
		}
		newest[s] = g
	}
}
