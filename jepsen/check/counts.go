package check

import (
	"slices"

	"onceq/jepsen/history"
)

// counts: at each index every message is in exactly one state, what is gone stays
// gone, and in the end the numbers are those of the history.
func counts(v *view, r *Report) {
	last := map[string]op{}
	for _, o := range v.queues {
		q := o.Queue
		if sum := q.Ready + q.Leased + q.Delayed + q.Parked + q.Acked + q.Purged; sum != q.Stored {
			r.broken("counts", o.Key, []op{o}, "%d were stored, and %d are ready, %d leased, %d delayed, %d parked, %d acked, %d purged: %d", q.Stored, q.Ready, q.Leased, q.Delayed, q.Parked, q.Acked, q.Purged, sum)
		}
		if before, ok := last[o.Key]; ok && before.T1 < o.T0 {
			b := before.Queue
			if q.Stored < b.Stored || q.Acked < b.Acked || q.Purged < b.Purged {
				r.broken("counts", o.Key, []op{before, o}, "stored %d, acked %d, purged %d went back to %d, %d, %d", b.Stored, b.Acked, b.Purged, q.Stored, q.Acked, q.Purged)
			}
		}
		last[o.Key] = o
	}
	if !v.drained() {
		return
	}
	end := v.drains[len(v.drains)-1]
	keys := make([]string, 0, len(last))
	for k := range last {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if o := last[key]; o.T0 >= end.T1 {
			finalCounts(v, r, key, o)
		}
	}
}

func finalCounts(v *view, r *Report, key string, o op) {
	var stored, acked, maybeAcked uint64
	for _, m := range v.order {
		if !m.of(key) {
			continue
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
	if q.Purged > 0 {
		return
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
