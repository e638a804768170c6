package check

import (
	"strings"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// storedTwice looks for ids with more than one place. One that has failed may be sent
// back to work, to a place further back: see moved.
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
		if v.setup.Redriven {
			moved(v, m, place, r)
			continue
		}
		for _, g := range m.grants {
			seen(g)
		}
	}
}

// moved: a message that nobody has seen is where it was stored, and from one attempt to
// the next it only moves on, to the end of its queue, with its priority. Nodes of the
// first machine's build sent it back without one.
func moved(v *view, m *message, stored op, r *Report) {
	last := stored
	for _, g := range m.grants {
		if last.Event != nil && last.Place() != g.Place() && (g.Attempt == 1 || !movesOn(v.setup, last.Place(), g.Place())) {
			r.broken("stored-twice", m.id, []op{last, g}, "attempt %d is at %v, and before it was at %v (%s)", g.Attempt, g.Place(), last.Place(), last.F)
		}
		last = g
	}
}

// movesOn says that what was sent back to work may come from one place to another.
func movesOn(s history.Setup, from, to history.Place) bool {
	if from.Lane == to.Lane {
		return to.Offset > from.Offset
	}
	return s.Older && (from.Lane == 0 || to.Lane == 0)
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
// with never changes, no session ends that was active within its expiry, and what was stored together
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
				if v.mayHaveExpired(p) {
					continue
				}
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

// mayHaveExpired says that since the newest answer that the session of a publish had got
// when that was refused so much time has passed that the cluster may have forgotten it.
func (v *view) mayHaveExpired(p op) bool {
	if v.setup.Expiry == 0 {
		return false
	}
	active := int64(0)
	for _, m := range v.order {
		for _, o := range m.publishes {
			if o.Type == history.OK && o.T1 <= p.T1 && sessionOf(o) == sessionOf(p) {
				active = max(active, o.T0)
			}
		}
	}
	idle := p.T1 - active
	for _, d := range v.passed {
		if d.T1 >= active && d.T0 <= p.T1 {
			idle += d.Delay
		}
	}
	return idle >= v.setup.Expiry-v.setup.Epsilon
}

// sessionOf is the session of an inner-msg-id: what comes before its sequence.
func sessionOf(o op) string {
	return o.Inner[:max(0, strings.LastIndexByte(o.Inner, '.'))]
}
