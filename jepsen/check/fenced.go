package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// fenced: a named session has one owner at a time. Once another one has opened it,
// nothing that an older one sends is taken, be it a publish or a copy of its open.
func fenced(v *view, r *Report) {
	newest := map[string]op{} // by session: of the opens that had been answered, the one with the highest epoch
	owners := map[owned]op{}
	has := map[string]op{} // by owner
	opens := slices.Clone(v.opens)
	slices.SortStableFunc(opens, func(a, b op) int { return cmp.Compare(a.T1, b.T1) })
	for _, o := range opens {
		if first, ok := has[o.Proc]; ok && first.Epoch != o.Epoch {
			r.broken("fenced", "", []op{first, o}, "%s opened %s in epoch %d, and a copy of that was answered with epoch %d", o.Proc, o.Session, first.Epoch, o.Epoch)
		} else if !ok {
			has[o.Proc] = o
		}
		of := owned{o.Session, o.Epoch}
		if first, ok := owners[of]; ok && first.Proc != o.Proc {
			r.broken("fenced", "", []op{first, o}, "%s and %s both have %s in epoch %d", first.Proc, o.Proc, o.Session, o.Epoch)
		} else if !ok {
			owners[of] = o
		}
	}
	// Everything that an owner asked for, in the order in which it did, against what
	// had been answered by then.
	asked := slices.Clone(opens)
	for _, m := range v.order {
		for _, p := range m.publishes {
			if p.Session != "" && p.Type == history.OK {
				asked = append(asked, p)
			}
		}
	}
	slices.SortStableFunc(asked, func(a, b op) int { return cmp.Compare(a.T0, b.T0) })
	answered := 0
	for _, a := range asked {
		for ; answered < len(opens) && opens[answered].T1 < a.T0; answered++ {
			if o := opens[answered]; newest[o.Session].Event == nil || o.Epoch > newest[o.Session].Epoch {
				newest[o.Session] = o
			}
		}
		if by := newest[a.Session]; by.Event != nil && a.Epoch < by.Epoch {
			r.broken("fenced", a.ID, []op{by, a}, "%s had %s in epoch %d, and then a request of %s in epoch %d was answered ok (%s)", by.Proc, by.Session, by.Epoch, a.Proc, a.Epoch, a.F)
		}
	}
}

// owned is one epoch of a session.
type owned struct {
	session string
	epoch   uint64
}
