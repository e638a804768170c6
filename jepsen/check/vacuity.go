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
		{"messages sent back to work from another queue, as counted at the end", v.movedInTheEnd(), least.Moved},
		{"messages seen parked at once", v.parkedMost(), least.Parked},
		{"messages handed out behind one of their ordering key that was given up", s.KeysPassed, least.KeysPassed},
		{"pairs of one ordering key sent back to work one after the other", s.KeysMoved, least.KeysMoved},
		{"answers to who the members are", len(v.members), least.Members},
		{"changes of the members that were seen", v.memberChanges(), least.Changes},
		{"publishes of replaced owners refused", fenced, least.Fenced},
		{"publishes sealed as never stored", s.Seals["ok sealed"], least.Sealed},
		{"digests of the state compared between nodes at the end", v.compared(), least.Digests},
		{"messages too old, as counted at the end", v.tooOldInTheEnd(), least.Expired},
		{"nodes whose files were looked at in the end", len(v.verified), least.Verified},
		{"queues counted at the end", v.counted(), least.Counted},
		{"nodes whose disk and memory were measured after the drain", v.measured(), least.Sized},
		{"stops of clients longer than a lease or the grace time", s.Stops[stopsLong], least.Stops},
		{"of them in which the cluster gave the connection up", s.Stops[stopsCutOff], least.CutOff},
		{"messages that others got since their consumer was stopped", s.Stops[stopsOvertaken], least.Overtaken},
		{"settles after a stop answered as lost", s.Stops[stopsLate], least.Late},
		{"handlers that heard that their lease is lost", s.Stops[stopsTold], least.Told},
		{"settles of what was held throughout a stop", s.Stops[stopsKept], least.Kept},
	} {
		if n.have < n.want {
			r.unknown("%d %s, %d are needed", n.have, n.what, n.want)
		}
	}
	if s.Compared == 0 && v.carries() {
		r.unknown("nothing of what was handed out was compared with what was published")
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
	blind(v, r)
}

// blind: times are excused by those in which the harness stood still. When those are
// long nothing that depends on time was judged.
func blind(v *view, r *Report) {
	longest, sum, end := int64(0), int64(0), int64(0)
	for _, s := range v.stalls {
		longest, sum = max(longest, s.T1-s.T0), sum+s.T1-s.T0
		end = max(end, s.T1)
	}
	for _, d := range v.drains {
		end = max(end, d.T1)
	}
	if longest >= min(v.setup.Lease, v.setup.Grace) || blindMost*sum > end && sum > v.setup.Epsilon {
		r.unknown("the harness stood still for %.1f s of %.1f s, once for %.1f s: what depends on time could not be judged", float64(sum)/1e9, float64(end)/1e9, float64(longest)/1e9)
	}
}

// blindMost: the harness may stand still for a fifth of a run.
const blindMost = 5

// compared is at how many indexes the states of two nodes or more were compared after
// the drain.
func (v *view) compared() int {
	at := map[uint64]map[string]bool{}
	for _, o := range v.states {
		if i := o.State.DigestIndex; i > 0 && v.afterDrain(o) {
			if at[i] == nil {
				at[i] = map[string]bool{}
			}
			at[i][o.Node] = true
		}
	}
	n := 0
	for _, nodes := range at {
		if len(nodes) > 1 {
			n++
		}
	}
	return n
}

// counted is of how many queues the counts were read after the drain.
func (v *view) counted() int {
	of := map[string]bool{}
	for _, o := range v.queues {
		if v.afterDrain(o) {
			of[o.Key] = true
		}
	}
	return len(of)
}

// measured is of how many nodes disk and memory were measured after the drain.
func (v *view) measured() int {
	of := map[string]bool{}
	for _, o := range v.sizes {
		if v.afterDrain(o) {
			of[o.Node] = true
		}
	}
	return len(of)
}

// carries says that the history tells with what messages were published.
func (v *view) carries() bool {
	told := func(p op) bool { return p.Carried != "" }
	for _, x := range v.rounds {
		for _, copies := range x.copies {
			if slices.ContainsFunc(copies, told) {
				return true
			}
		}
	}
	return slices.ContainsFunc(v.order, func(m *message) bool { return slices.ContainsFunc(m.publishes, told) })
}

// movedInTheEnd is how many messages have moved from one queue to another by command.
func (v *view) movedInTheEnd() (n int) {
	last := map[string]op{}
	for _, o := range v.queues {
		last[o.Key] = o
	}
	for _, o := range last {
		n += int(o.Queue.Moved)
	}
	return n
}

// parkedMost is how many messages of a queue were parked at the same time.
func (v *view) parkedMost() (n int) {
	for _, o := range v.queues {
		n = max(n, int(o.Queue.Parked))
	}
	return n
}

func (v *view) afterDrain(o op) bool {
	return v.drained() && o.T0 >= v.drains[len(v.drains)-1].T1
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
