package check

import (
	"fmt"
	"slices"
)

// rejoined: when nothing is broken any more, each node is back: it leads and serves, or
// follows one that does, and has what any node had. Each stretch without a fault is looked
// at, from the last start of the node in it on.
//
// A node that has ended by itself is not waited for: whether it was right to, crash tells,
// and who is to be wiped must not come back.
func rejoined(v *view, r *Report) {
	until := v.watched()
	for _, calm := range v.stretches(0, until) {
		for i := range v.setup.Nodes {
			node := fmt.Sprintf("n%d", i+1)
			from, away := v.backSince(node, calm.from, calm.to)
			if away {
				continue
			}
			// What was applied within the last minute may be on its way to it.
			due := v.earlier(calm.to, stuckMost)
			if due <= from {
				continue
			}
			goal, seen := v.most(due)
			if seen.Event == nil || v.back(node, goal, from, calm.to) {
				continue
			}
			last := v.lastOf(node, calm.to)
			text := "says nothing"
			if last.Event != nil && last.T1 > from {
				s := last.State
				text = fmt.Sprintf("is %s, serves: %v, follows %q, has applied %d", s.Role, s.Serving, s.Leader, s.Applied)
			}
			shown := []op{seen}
			if last.Event != nil {
				shown = append(shown, last)
			}
			r.broken("rejoined", node, shown, "nothing was broken from %.1f s to %.1f s, and %s is not back: it %s, and %s had applied %d in time",
				float64(from)/1e9, float64(calm.to)/1e9, node, text, seen.Node, goal)
		}
	}
}

// watched is until when the nodes were looked at and left alone: after the drain and what
// is waited for behind it they are ended.
func (v *view) watched() (t int64) {
	for _, o := range v.states {
		t = max(t, o.T1)
	}
	if n := len(v.tidies); n > 0 {
		return min(t, v.tidies[n-1].T1)
	}
	if n := len(v.drains); n > 0 {
		return min(t, v.drains[n-1].T1)
	}
	return t
}

// backSince is from when on in a stretch a node could come back: it may have been started,
// or have gone on, behind the fault, as everything is healed. away says that it ended by
// itself and was not started again.
func (v *view) backSince(node string, from, to int64) (since int64, away bool) {
	since = from
	started := int64(0)
	for _, o := range v.starts {
		if o.Node == node && o.T1 <= to {
			started = max(started, o.T1)
		}
	}
	since = max(since, started)
	for _, o := range v.held {
		if o.Node == node && o.T1 <= to {
			since = max(since, o.T1)
		}
	}
	for _, o := range slices.Concat(v.crashes, v.gaveUps) {
		away = away || o.Node == node && started <= o.T1 && o.T1 <= to
	}
	return since, away
}

// earlier is the moment that lies so much time before another, without that in which the
// harness stood still.
func (v *view) earlier(t, d int64) int64 {
	at := t - d
	for {
		next := t - d - v.stalled(at, t)
		if next >= at {
			return at
		}
		at = next
	}
}

// most is what the node had applied that had applied most by then.
func (v *view) most(until int64) (goal uint64, seen op) {
	for _, o := range v.states {
		if o.T1 <= until && (seen.Event == nil || o.State.Applied > goal) {
			goal, seen = o.State.Applied, o
		}
	}
	return goal, seen
}

// back says that a node was seen at work in a stretch, with all up to goal.
func (v *view) back(node string, goal uint64, from, to int64) bool {
	return slices.ContainsFunc(v.states, func(o op) bool {
		s := o.State
		works := s.Role == "leader" && s.Serving || s.Role == "follower" && s.Leader != ""
		return o.Node == node && from <= o.T1 && o.T1 <= to && s.Applied >= goal && works
	})
}

// lastOf is what a node said last.
func (v *view) lastOf(node string, until int64) (last op) {
	for _, o := range v.states {
		if o.Node == node && o.T1 <= until {
			last = o
		}
	}
	return last
}
