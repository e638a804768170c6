package check

import (
	"cmp"
	"slices"
)

// single: a queue with a single active consumer hands messages to another one only
// when the one before has ended or was cut off for the grace time.
func single(v *view, r *Report) {
	for _, key := range v.setup.Single {
		var all []op
		for _, m := range v.order {
			for _, g := range m.grants {
				if g.Key == key {
					all = append(all, g)
				}
			}
		}
		slices.SortFunc(all, func(a, b op) int { return cmp.Or(cmp.Compare(a.T1, b.T1), cmp.Compare(a.I, b.I)) })
		for i := 1; i < len(all); i++ {
			a, b := all[i-1], all[i]
			// What the one before was sent may be seen when it has ended.
			if a.Proc != b.Proc && !v.mayHaveEnded(a.Proc, b.T1) && !v.mayHaveEnded(b.Proc, b.T1) {
				r.broken("single", b.ID, []op{a, b}, "%s was handed messages of %s, had not ended, and then %s was", a.Proc, key, b.Proc)
				break
			}
		}
	}
}

// mayHaveEnded says that by then a consumer had left or died, or had been cut off for
// the grace time.
func (v *view) mayHaveEnded(proc string, t int64) bool {
	c := v.consumers[proc]
	return c != nil && (slices.ContainsFunc(c.ends, func(e ending) bool { return e.T0 <= t }) ||
		slices.ContainsFunc(c.silent, func(s op) bool {
			until := min(s.T1, t)
			return until-s.T0 >= v.setup.Grace+v.stood(s.T0, until)-v.epsilon(s.T0, until)
		}))
}
