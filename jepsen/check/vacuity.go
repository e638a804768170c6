package check

import (
	"slices"
	"strings"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// calmLeast is how many publishes in calm stretches make a percentage.
const calmLeast = 50

// vacuity says why a history without violations still proves nothing.
func vacuity(v *view, r *Report) {
	if !v.drained() {
		r.unknown("the run was not drained, so nothing can be called lost")
	}
	s, least := r.Stats, v.setup.Least
	listed, commands := 0, 0
	for _, a := range v.attaches {
		listed += len(a.Listed)
	}
	for _, a := range v.admins {
		if a.Type == history.OK {
			commands++
		}
	}
	lost, dead, fenced := 0, 0, 0
	for _, m := range v.order {
		dead += min(len(m.dead), 1)
		for _, p := range m.publishes {
			if p.Type == history.Fail && p.Err == wire.StatusFenced.String() {
				fenced++
			}
		}
		for _, x := range m.settles {
			if x.Type == history.Fail {
				lost++
			}
		}
	}
	for _, n := range []struct {
		what       string
		have, want int
	}{
		{"publishes answered ok", s.Publishes[string(history.OK)], least.Publishes},
		{"deliveries", s.Deliveries, least.Deliveries},
		{"acks answered ok", s.Acks[string(history.OK)], least.Acks},
		{"publishes answered as duplicate", s.Duplicates, least.Duplicates},
		{"settles answered as lost", lost, least.Refused},
		{"deliveries listed by consumers that resumed", listed, least.Listed},
		{"commands on queues answered ok", commands, least.Commands},
		{"rounds of backup and restore", v.roundsDone(), least.Rounds},
		{"dead letters", dead, least.Dead},
		{"answers to who the members are", len(v.members), least.Members},
		{"changes of the members that were seen", v.memberChanges(), least.Changes},
		{"publishes of replaced owners refused", fenced, least.Fenced},
		{"publishes sealed as never stored", s.Seals["ok sealed"], least.Sealed},
	} {
		if n.have < n.want {
			r.unknown("%d %s, %d are needed", n.have, n.what, n.want)
		}
	}
	if v.setup.Mix {
		mixed(v, r)
	}
	for _, kind := range v.setup.Faults {
		if v.setup.Mix {
			break
		}
		done := slices.ContainsFunc(v.faults, func(f op) bool { return f.Key == kind })
		seen := slices.ContainsFunc(v.faults, func(f op) bool { return f.Key == kind && f.Seen })
		switch {
		case !done:
			r.unknown("fault %s was planned and never made", kind)
		case !seen:
			r.unknown("fault %s had no effect that was observed", kind)
		}
	}
	calm(v, r)
}

// mixed: in a mix not every kind comes, but half of those that came must have had
// an effect.
func mixed(v *view, r *Report) {
	seen := 0
	for _, f := range v.faults {
		if f.Seen {
			seen++
		}
	}
	if len(v.setup.Faults) > 0 && (len(v.faults) == 0 || 2*seen < len(v.faults)) {
		r.unknown("of %d faults %d had an effect that was observed", len(v.faults), seen)
	}
}

// queueFull is what a publish to a queue without room is answered.
const queueFull = "the queue is full"

// calm: while nothing is broken, nearly everything must work.
func calm(v *view, r *Report) {
	if v.setup.Least.CalmOK == 0 {
		return
	}
	all, ok := 0, 0
	for _, m := range v.order {
		for _, p := range m.publishes {
			if !slices.ContainsFunc(v.calms, func(c op) bool { return c.T0 <= p.T0 && p.T0 < c.T1 }) {
				continue
			}
			if p.Type == history.Fail && strings.Contains(p.Err, queueFull) {
				continue // a workload fills a queue on purpose
			}
			all++
			if p.Type == history.OK {
				ok++
			}
		}
	}
	switch {
	case all < calmLeast:
		r.unknown("%d publishes in calm stretches, %d are needed", all, calmLeast)
	case ok*100 < all*v.setup.Least.CalmOK:
		r.unknown("%d of %d publishes in calm stretches were ok, %d %% are needed", ok, all, v.setup.Least.CalmOK)
	}
}
