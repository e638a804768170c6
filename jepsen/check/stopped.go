package check

import (
	"cmp"
	"slices"
	"time"

	"onceq/jepsen/history"
)

// asleep: a client whose process was stopped goes on by itself when that does, and what
// it was to repeat until it has an answer gets one.
func asleep(v *view, r *Report) {
	for _, s := range v.stops {
		to := v.restsUntil(s.Proc, s.T1)
		doing := v.doing[s.Proc]
		if i, _ := slices.BinarySearch(doing, s.T1); i < len(doing) {
			to = min(to, doing[i])
		}
		if v.idle(s.Proc, s.T1, to) > stuckMost && v.othersWork(s.Proc, s.T1+stuckMost, to) {
			r.broken("asleep", "", []op{s}, "%s went on at %.1f s, and by %.1f s it had done nothing, while others did", s.Proc, float64(s.T1)/1e9, float64(to)/1e9)
		}
	}
	for _, m := range v.order {
		for _, p := range m.publishes {
			if !p.Patient {
				continue
			}
			to := p.T1 // also when it was given up in the end
			if p.Type == history.Invoke {
				to = v.restsUntil("", p.T0)
			}
			if v.idle(p.Proc, p.T0, to) > stuckMost {
				r.broken("asleep", m.id, []op{p}, "%s was to publish it until it has an answer, and had none after %.1f s", p.Proc, float64(to-p.T0)/1e9)
			}
		}
	}
}

// restsUntil is when a client is stopped again after a moment, or everybody stops.
func (v *view) restsUntil(proc string, from int64) int64 {
	to := v.last
	for _, d := range v.drains {
		to = min(to, d.T0)
	}
	for _, s := range v.stops {
		if s.Proc == proc && s.T0 > from {
			to = min(to, s.T0)
		}
	}
	return to
}

// idle is for how long a client could have done something between two moments: in the
// longest stretch in which nothing was broken, without the times in which its process or
// the harness stood still.
func (v *view) idle(proc string, from, to int64) int64 {
	if to <= from {
		return 0
	}
	from, to = v.whole(from, to)
	sum := to - from - v.stalled(from, to)
	for _, s := range v.stops {
		if s.Proc == proc {
			sum -= max(0, min(s.T1, to)-max(s.T0, from))
		}
	}
	return sum
}

// othersWork says that another client got something done of what this one does, between
// two moments.
func (v *view) othersWork(proc string, from, to int64) bool {
	for other, times := range v.doing {
		if i, _ := slices.BinarySearch(times, from); other != proc && v.producers[other] == v.producers[proc] && i < len(times) && times[i] <= to {
			return true
		}
	}
	return false
}

// untold: a handler whose lease is over hears so, and then its ack does not count.
func untold(v *view, r *Report) {
	for _, m := range v.order {
		for _, t := range m.told {
			to := t.T1
			if t.Type == history.Invoke {
				to = v.restsUntil("", t.T0)
			}
			if v.idle(t.Proc, t.T0, to) > stuckMost {
				r.broken("untold", m.id, []op{t}, "%s has lost attempt %d, and its handler does not hear it", t.Proc, t.Attempt)
			}
			for _, s := range m.settles {
				if t.Type == history.OK && s.Type == history.OK && s.Proc == t.Proc && s.Attempt == t.Attempt && t.T1 < s.T0 {
					r.broken("untold", m.id, []op{t, s}, "%s heard that attempt %d is lost, and then its %s was ok", t.Proc, t.Attempt, s.F)
				}
			}
		}
	}
}

// canExtend says that a client could keep the lease of a delivery alive until a moment: at
// no time it stood still, or was cut off, for so long that an extension came too late, and
// nothing was broken that may hold one up where no silence shows.
func (v *view) canExtend(g op, until int64) bool {
	if slices.ContainsFunc(v.faults, func(f op) bool { return f.T0 <= until && g.T0 <= f.end() }) {
		return false
	}
	c := v.consumers[g.Proc]
	if c == nil {
		return true
	}
	silent := slices.Clone(c.silent)
	slices.SortFunc(silent, func(a, b op) int { return cmp.Compare(a.T0, b.T0) })
	// The library extends each third of a lease, so that half of one is left.
	most := v.setup.Lease/2 - v.epsilon(g.T0, until)
	from, to := int64(0), int64(-1) // of a stretch that is made of several
	for _, s := range silent {
		if s.T0 > to {
			from = s.T0
		}
		to = max(to, s.T1)
		if to >= g.T0 && from <= until && min(to, until)-from >= most {
			return false
		}
	}
	return true
}

// stopsOf counts what the stops of clients were long enough for.
func (v *view) stopsOf() map[string]int {
	n := map[string]int{}
	long := func(s op) bool { return s.Seen && s.T1-s.T0 > min(v.setup.Lease, v.setup.Grace) }
	for _, s := range v.stops {
		if !long(s) {
			continue
		}
		n[stopsLong]++
		if c := v.consumers[s.Proc]; c != nil && slices.ContainsFunc(c.silent, func(o op) bool {
			return o.F == history.Silent && o.T0 < s.T1 && o.T1 >= s.T1-int64(time.Second)
		}) {
			n[stopsCutOff]++
		}
	}
	for _, m := range v.order {
		for i, g := range m.grants {
			within := func(from, to int64) bool {
				return slices.ContainsFunc(v.stops, func(s op) bool { return s.Proc == g.Proc && long(s) && g.T0 <= s.T0 && from <= s.T1 && s.T0 <= to })
			}
			if i+1 < len(m.grants) {
				if next := m.grants[i+1]; next.Proc != g.Proc && within(next.T1, next.T1) {
					n[stopsOvertaken]++
				}
			}
			for _, s := range m.settles {
				if s.Type == history.Fail && s.Proc == g.Proc && s.Attempt == g.Attempt && within(g.T0, s.T1) {
					n[stopsLate]++
				}
				if s.Type == history.OK && s.Proc == g.Proc && s.Attempt == g.Attempt && slices.ContainsFunc(v.stops, func(o op) bool {
					return o.Seen && o.Proc == g.Proc && g.T1 <= o.T0 && o.T1 <= s.T1
				}) {
					n[stopsKept]++
				}
			}
		}
		for _, t := range m.told {
			if t.Type == history.OK {
				n[stopsTold]++
			}
		}
	}
	return n
}

// What stopsOf counts.
const (
	stopsLong      = "longer than a lease or the grace time"
	stopsCutOff    = "the connection was given up"
	stopsOvertaken = "others got the message"
	stopsLate      = "a settle came too late"
	stopsTold      = "a handler heard that its lease is lost"
	stopsKept      = "what was held throughout was settled"
)
