package check

import (
	"slices"

	"onceq/jepsen/history"
)

// counts: at each index every message is in exactly one state, what is gone stays
// gone, and in the end the numbers are those of the history.
func counts(v *view, r *Report) {
	last := map[life]op{}
	var order []life
	for _, o := range v.queues {
		q := o.Queue
		gone := q.Acked + q.Purged + q.TooOld + q.DeadLettered + q.Deleted + q.Moved
		if sum := q.Ready + q.Leased + q.Delayed + q.Parked + gone; sum != q.Stored {
			r.broken("counts", o.Key, []op{o}, "%d were stored, and %d are ready, %d leased, %d delayed, %d parked, %d acked, %d purged, %d deleted, %d gone otherwise: %d", q.Stored, q.Ready, q.Leased, q.Delayed, q.Parked, q.Acked, q.Purged, q.Deleted, q.TooOld+q.DeadLettered+q.Moved, sum)
		}
		l := life{o.Key, o.Number}
		if _, ok := last[l]; !ok {
			order = append(order, l)
		}
		if before, ok := last[l]; ok && before.T1 < o.T0 && !v.restoredWithin(before.T0, o.T1) {
			b := before.Queue
			for _, c := range []struct {
				what        string
				before, now uint64
			}{
				{"stored", b.Stored, q.Stored}, {"acked", b.Acked, q.Acked}, {"purged", b.Purged, q.Purged}, {"deleted", b.Deleted, q.Deleted},
				{"too old", b.TooOld, q.TooOld}, {"dead-lettered", b.DeadLettered, q.DeadLettered}, {"moved", b.Moved, q.Moved},
				{"delivered", b.Delivered, q.Delivered}, {"duplicates", b.Duplicates, q.Duplicates},
				{"leases that ran out", b.Expired, q.Expired}, {"nacked", b.Nacked, q.Nacked}, {"of consumers gone", b.Gone, q.Gone},
				{"of consumers that left", b.Left, q.Left},
			} {
				if c.now < c.before {
					r.broken("counts", o.Key, []op{before, o}, "%s: %d went back to %d", c.what, c.before, c.now)
				}
			}
		}
		last[l] = o
	}
	if !v.drained() || len(v.restores) > 0 {
		return // what a restore brought is not in the history
	}
	end := v.drains[len(v.drains)-1]
	if v.setup.Redriven {
		conserved(v, r, last, end)
	}
	for _, l := range order {
		if o := last[l]; o.T0 >= end.T1 {
			finalCounts(v, r, l.key, o)
		}
	}
}

// conserved: what is moved between queues is neither more nor less afterwards. All
// queues together have stored what was published, and let go of what was acked.
func conserved(v *view, r *Report, last map[life]op, end op) {
	var stored, acked, known, maybe, ackedOK, ackedMaybe uint64
	var seen []op
	from := int64(never) // what came after the counts were read is not in them
	for _, o := range last {
		if o.T0 < end.T1 {
			return
		}
		from = min(from, o.T0)
		q := o.Queue
		seen = append(seen, o)
		stored += q.Stored - q.Moved - q.DeadLettered // who moves on is stored once more
		acked += q.Acked
	}
	for _, m := range v.order {
		p, ok := m.confirmed()
		switch {
		case ok && p.T1 <= from || slices.ContainsFunc(m.grants, func(g op) bool { return g.T1 <= from }):
			known++
			maybe++
		case slices.ContainsFunc(m.publishes, op.maybe):
			maybe++
		}
		if slices.ContainsFunc(m.settles, func(s op) bool { return s.F == history.Ack && s.Type == history.OK && s.T1 <= from }) {
			ackedOK++
		}
		if m.mayBeAcked() {
			ackedMaybe++
		}
	}
	if stored < known || stored > maybe {
		r.broken("counts", "", seen, "all queues together have stored %d messages, the history knows of %d and %d more at most", stored, known, maybe-known)
	}
	if acked < ackedOK || acked > ackedMaybe {
		r.broken("counts", "", seen, "all queues together count %d acked, the history %d and %d more at most", acked, ackedOK, ackedMaybe-ackedOK)
	}
}

// life is a queue from its creation to its end.
type life struct {
	key    string
	number uint64
}

func finalCounts(v *view, r *Report, key string, o op) {
	var stored, acked, maybeAcked uint64
	for _, m := range v.order {
		if !m.of(key) {
			continue
		}
		if at, ok := m.placed(); ok && at.Number != o.Number {
			continue // of an earlier queue of that name
		}
		// What came after the counts were read is not in them.
		p, confirmed := m.confirmed()
		if confirmed && p.T1 <= o.T0 || slices.ContainsFunc(m.grants, func(g op) bool { return g.T1 <= o.T0 }) {
			stored++
		}
		if slices.ContainsFunc(m.settles, func(s op) bool { return s.F == history.Ack && s.Type == history.OK && s.T1 <= o.T0 }) {
			acked++
		}
		if slices.ContainsFunc(m.settles, func(s op) bool { return s.F == history.Ack && s.maybe() && s.T0 <= o.T1 }) {
			maybeAcked++
		}
	}
	q := o.Queue
	if key == v.setup.DeadLetters {
		return // nobody publishes to it
	}
	if q.Purged+q.Deleted+q.DeadLettered+q.TooOld+q.Moved > 0 {
		return // of what was never confirmed and is gone nobody knows
	}
	if q.Stored != stored {
		r.broken("counts", key, []op{o}, "the cluster has stored %d messages, the history knows of %d", q.Stored, stored)
	}
	if q.Acked < acked || q.Acked > maybeAcked {
		r.broken("counts", key, []op{o}, "the cluster counts %d acked, the history %d and %d more at most", q.Acked, acked, maybeAcked-acked)
	}
}

// of says whether the message belongs to a queue.
func (m *message) of(key string) bool {
	if len(m.publishes) > 0 {
		return m.publishes[0].Key == key
	}
	return len(m.grants) > 0 && m.grants[0].Key == key
}
