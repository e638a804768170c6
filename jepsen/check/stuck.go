package check

import (
	"cmp"
	"slices"
	"time"

	"onceq/jepsen/history"
)

// stuckMost is for how long a cluster that is whole may get nothing done. It is the one
// bound for everything that has to happen at some time.
const stuckMost = int64(60 * time.Second)

// stuck: while nothing is broken something gets done, from the first thing that was
// done until everybody stops.
func stuck(v *view, r *Report) {
	var done []op
	for _, m := range v.order {
		for _, p := range m.publishes {
			if p.Type == history.OK {
				done = append(done, p)
			}
		}
		for _, s := range m.settles {
			if s.Type == history.OK {
				done = append(done, s)
			}
		}
	}
	for _, round := range v.rounds {
		for _, copies := range round.copies {
			for _, c := range copies {
				if c.Type == history.OK {
					done = append(done, c)
				}
			}
		}
	}
	if len(done) == 0 {
		return // what was needed and did not happen vacuity tells
	}
	slices.SortFunc(done, func(a, b op) int { return cmp.Compare(a.T1, b.T1) })
	end := int64(never)
	if len(v.drains) > 0 {
		end = v.drains[0].T0
	}
	for i, before := range done {
		next := end
		if i+1 < len(done) {
			next = min(next, done[i+1].T1)
		}
		if next == never || next-before.T1 <= stuckMost {
			continue
		}
		if from, to := v.whole(before.T1, next); to-from-v.stalled(from, to) > stuckMost {
			r.broken("stuck", "", []op{before}, "nothing was broken from %.1f s to %.1f s, and nothing got done", float64(from)/1e9, float64(to)/1e9)
		}
	}
}

// stalled is for how long the harness stood still between two moments.
func (v *view) stalled(from, to int64) int64 { return overlap(v.stalls, from, to) }

// overlap is how much of what lies between two moments these take.
func overlap(ops []op, from, to int64) (sum int64) {
	for _, o := range ops {
		sum += max(0, min(o.T1, to)-max(o.T0, from))
	}
	return sum
}

// stretch is from one moment to another.
type stretch struct{ from, to int64 }

// stretches are the times without a fault between two moments.
func (v *view) stretches(from, to int64) (all []stretch) {
	faults := slices.Clone(v.faults)
	slices.SortFunc(faults, func(a, b op) int { return cmp.Compare(a.T0, b.T0) })
	at := from
	for _, f := range faults {
		if f.T0 > at {
			all = append(all, stretch{at, min(f.T0, to)})
		}
		if at = max(at, f.end()); at >= to {
			return all
		}
	}
	return append(all, stretch{at, to})
}

// whole is the longest stretch without a fault between two moments.
func (v *view) whole(from, to int64) (longestFrom, longestTo int64) {
	for _, s := range v.stretches(from, to) {
		if s.to-s.from > longestTo-longestFrom {
			longestFrom, longestTo = s.from, s.to
		}
	}
	return longestFrom, longestTo
}
