package check

import (
	"strings"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// storedTwice looks for ids with more than one place.
func storedTwice(v *view, r *Report) {
	for _, m := range v.order {
		var place, fresh op
		seen := func(o op) {
			switch {
			case place.Event == nil:
				place = o
			case place.Place() != o.Place():
				r.broken("stored-twice", m.id, []op{place, o}, "at offset %v (%s) and at offset %v (%s)", place.Place(), place.F, o.Place(), o.F)
			}
		}
		for _, p := range m.publishes {
			if p.Type != history.OK {
				continue
			}
			seen(p)
			if p.Dup {
				continue
			}
			if fresh.Event != nil {
				r.broken("stored-twice", m.id, []op{fresh, p}, "confirmed as new twice")
			}
			fresh = p
		}
		for _, g := range m.grants {
			seen(g)
		}
	}
}

// collision looks for two ids in one place.
func collision(v *view, r *Report) {
	type place struct {
		key string
		at  history.Place
	}
	at := map[place]op{}
	for _, m := range v.order {
		for _, o := range append(append([]op(nil), m.publishes...), m.grants...) {
			if o.F == history.Publish && o.Type != history.OK {
				continue
			}
			p := place{o.Key, o.Place()}
			if other, ok := at[p]; ok && other.ID != o.ID {
				r.broken("collision", m.id, []op{other, o}, "%s and %s are both at offset %v of %s", other.ID, o.ID, p.at, o.Key)
				break
			}
			at[p] = o
		}
	}
}

// wrongDup looks for a "duplicate" that nothing can be a duplicate of.
func wrongDup(v *view, r *Report) {
	for _, m := range v.order {
		for _, p := range m.publishes {
			if p.Type != history.OK || !p.Dup || p.Copies > 1 {
				continue
			}
			explained := false
			for _, other := range m.publishes {
				// A refused copy has stored nothing.
				if other.I != p.I && other.maybe() && other.T0 <= p.T1 {
					explained = true
				}
			}
			if !explained {
				r.broken("wrong-dup", m.id, []op{p}, "the only copy so far was answered as a duplicate")
			}
		}
	}
}

// refused looks for refusals that no honest copy may get: what one id is published
// with never changes, no session ends within a run, and what was stored together
// with an ack is judged by its record, whatever has become of the lease. A producer's
// floor stays below what it has not heard the outcome of, so unless another owner of
// its session has raised it the cluster can always tell.
func refused(v *view, r *Report) {
	for _, m := range v.order {
		for _, p := range m.publishes {
			if p.Type == history.Info && len(v.opens) == 0 && strings.Contains(p.Err, wire.CodeBelowFloor.String()) {
				r.broken("refused", m.id, []op{p}, "its producer's floor has passed it before it knew what became of it: %s", p.Err)
			}
			if p.Text == history.HeldBack {
				r.broken("refused", m.id, []op{p}, "its outbox could not learn what became of it: %s", p.Err)
			}
			if p.Type != history.Fail {
				continue
			}
			switch p.Err {
			case "session expired":
				r.broken("refused", m.id, []op{p}, "the session of %s is unknown", p.Inner)
			case "lease lost", "consumer gone":
				if first, ok := m.confirmed(); ok {
					r.broken("refused", m.id, []op{first, p}, "stored as offset %d together with an ack, and then refused for its lease: %s", first.Seq, p.Err)
				}
			case "body differs":
				// Another id may have taken the sequence, and then this one is not stored.
				if first, ok := m.confirmed(); ok {
					r.broken("refused", m.id, []op{first, p}, "stored as offset %d, and then refused as another body", first.Seq)
				}
			}
		}
	}
}
