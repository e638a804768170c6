package check

import (
	"maps"
	"slices"
)

// altered: what is handed out is what was published, on whatever way it came: from
// memory or from disk, as a dead letter and back, as the output of an ack, from a
// snapshot, after a restore. The body is looked at where it is handed out, see phantom
// and restored.
func altered(v *view, r *Report) {
	v.compare(func(published, out op) {
		if published.Carried != out.Carried {
			r.broken("altered", out.ID, []op{published, out}, "published with %s, and handed out (%s to %s) with %s", published.Carried, out.F, out.Proc, out.Carried)
		}
	})
}

// compare calls each for everything that was handed out, with the first publish of it.
func (v *view) compare(each func(published, out op)) {
	pairs := func(published, out []op) {
		known := slices.IndexFunc(published, func(p op) bool { return p.Carried != "" })
		for _, o := range out {
			if known >= 0 && o.Carried != "" {
				each(published[known], o)
			}
		}
	}
	for _, m := range v.order {
		pairs(m.publishes, m.grants)
		pairs(m.publishes, m.dead)
	}
	for _, n := range slices.Sorted(maps.Keys(v.rounds)) {
		for _, id := range slices.Sorted(maps.Keys(v.rounds[n].found)) {
			pairs(v.rounds[n].copies[id], v.rounds[n].found[id])
		}
	}
}
