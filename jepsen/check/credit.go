package check

import (
	"cmp"
	"slices"
)

// credit: a consumer never holds more than it said that it can take. A delivery is
// held from when it was seen until it is settled, or until the cluster may have taken
// it back.
func credit(v *view, r *Report) {
	most := map[string]int{}
	for _, a := range v.attaches {
		most[a.Proc] = max(most[a.Proc], a.Credit)
	}
	type grant struct {
		op
		m *message
	}
	grants := map[string][]grant{}
	var procs []string
	for _, m := range v.order {
		for _, g := range m.grants {
			if most[g.Proc] == 0 {
				continue // it has said nothing
			}
			if grants[g.Proc] == nil {
				procs = append(procs, g.Proc)
			}
			grants[g.Proc] = append(grants[g.Proc], grant{g, m})
		}
	}
	for _, proc := range procs {
		all := grants[proc]
		slices.SortStableFunc(all, func(a, b grant) int { return cmp.Compare(a.T1, b.T1) })
		var held []grant
		for _, g := range all {
			held = slices.DeleteFunc(held, func(h grant) bool { return v.holds(h.m, h.op, g.T1) <= g.T1 })
			held = append(held, g)
			if len(held) > most[proc] {
				seen := []op{}
				for _, h := range held[:min(len(held), creditShown)] {
					seen = append(seen, h.op)
				}
				r.broken("credit", g.m.id, append(seen, g.op), "%s holds %d messages, and has said that it takes %d", proc, len(held), most[proc])
			}
		}
	}
}

// creditShown is how many of those that a consumer holds are named in a violation.
const creditShown = 5
