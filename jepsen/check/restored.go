package check

import (
	"maps"
	"slices"

	"onceq/jepsen/history"
)

// round is one backup and its restore over the cluster that it was made of, what
// was published before and after the backup, and what was there in the end.
type round struct {
	backup, restore, emptied *op
	copies, found            map[string][]op
}

func (v *view) round(o op) {
	if v.rounds == nil {
		v.rounds = map[int]*round{}
	}
	r := v.rounds[o.Life]
	if r == nil {
		r = &round{copies: map[string][]op{}, found: map[string][]op{}}
		v.rounds[o.Life] = r
	}
	if o.F == history.Restore {
		v.restores = append(v.restores, o)
	}
	switch {
	case o.F == history.Copy:
		r.copies[o.ID] = append(r.copies[o.ID], o)
	case o.F == history.Found:
		r.found[o.ID] = append(r.found[o.ID], o)
	case o.Type != history.OK: // a try
	case o.F == history.Backup:
		r.backup = &o
	case o.F == history.Restore:
		r.restore = &o
	case o.F == history.Emptied:
		r.emptied = &o
	}
}

// roundsDone counts those that were seen to their end.
func (v *view) roundsDone() (n int) {
	for _, r := range v.rounds {
		if r.backup != nil && r.restore != nil && r.emptied != nil {
			n++
		}
	}
	return n
}

// restoredWithin says whether a restore may have taken effect between two moments.
func (v *view) restoredWithin(t0, t1 int64) bool {
	return slices.ContainsFunc(v.restores, func(o op) bool { return o.T0 <= t1 && t0 <= o.end() })
}

// restored: with a restore the cluster has what the backup has, each message once
// and marked, and nothing that is sent again later adds to it or is confirmed
// although the backup cannot know it.
func restored(v *view, r *Report) {
	for _, n := range slices.Sorted(maps.Keys(v.rounds)) {
		if x := v.rounds[n]; x.backup != nil && x.restore != nil {
			for _, id := range slices.Sorted(maps.Keys(x.copies)) {
				x.judge(r, id)
			}
		}
	}
}

func (x *round) judge(r *Report, id string) {
	copies, found := x.copies[id], x.found[id]
	known := slices.ContainsFunc(copies, func(c op) bool { return c.T0 < x.backup.T1 })
	var first, sure *op
	for i := range copies {
		c := &copies[i]
		if c.Type != history.OK {
			continue
		}
		late := c.T0 > x.restore.T1
		switch {
		case late && !c.Dup:
			r.broken("restored", id, []op{*x.restore, *c}, "a copy was stored after the restore")
		case late && !known:
			r.broken("restored", id, []op{*x.backup, *c}, "a copy was confirmed that the backup cannot know")
		case first != nil && c.Place() != first.Place():
			r.broken("restored", id, []op{*first, *c}, "confirmed at %s and at %s", first.Place(), c.Place())
		}
		if first == nil {
			first = c
		}
		if c.T1 < x.backup.T0 {
			sure = c
		}
	}
	for i, f := range found {
		switch {
		case !known:
			r.broken("restored", id, []op{*x.backup, f}, "it was first sent after the backup, and is there after the restore")
		case f.Err != "":
			r.broken("restored", id, []op{*x.restore, f}, "it is there with a body that is not its own: %s", f.Err)
		case !f.Seen:
			r.broken("restored", id, []op{*x.restore, f}, "it is not marked as restored")
		case i > 0 && f.Place() != found[0].Place():
			r.broken("restored", id, []op{found[0], f}, "it is there at %s and at %s", found[0].Place(), f.Place())
		}
	}
	if sure != nil && len(found) == 0 && x.emptied != nil {
		r.broken("restored", id, []op{*sure, *x.backup, *x.emptied}, "confirmed before the backup, and not there after the restore")
	}
}
