package check

import (
	"slices"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// wrongLost: a settle, a handler, and who attaches again, hears that a lease is lost only
// if it is. It is the mirror of no-cause: what takes a message away from its holder is what
// lets it be handed out again, or somebody has removed it.
func wrongLost(v *view, r *Report) {
	told := map[*message][]op{}
	for _, a := range v.attaches {
		for _, item := range a.Listed {
			if m := v.ids[item.ID]; m != nil && a.Type == history.OK && isLost(item.State) {
				e := *a.Event
				e.Attempt, e.Err = item.Attempt, item.State
				told[m] = append(told[m], op{&e})
			}
		}
	}
	for _, m := range v.order {
		for _, t := range m.told {
			if t.Type == history.OK {
				told[m] = append(told[m], t)
			}
		}
		for _, s := range m.settles {
			if s.Type == history.Fail {
				told[m] = append(told[m], s)
			}
		}
		for _, s := range told[m] {
			i := slices.IndexFunc(m.grants, func(g op) bool { return g.Attempt == s.Attempt && g.Proc == s.Proc })
			if i >= 0 && v.takenBy(m, m.grants[i], s) == "" {
				r.broken("wrong-lost", m.id, []op{m.grants[i], s}, "%s's %s of attempt %d was answered %q %.1f s after it came, and nothing had taken it", s.Proc, s.F, s.Attempt, s.Err, float64(s.T1-m.grants[i].T1)/1e9)
			}
		}
	}
}

// isLost says that a state is that of a lease that its consumer has lost. What it has
// settled itself is none, and of what the cluster has forgotten resume tells.
func isLost(state string) bool {
	switch state {
	case wire.LeaseExpired.String(), wire.LeaseGone.String(), wire.LeasePurged.String(), wire.LeaseDeleted.String(), wire.LeaseReturned.String():
		return true
	}
	return false
}

// takenBy says why a settle finds no lease: "" when there is no reason.
func (v *view) takenBy(m *message, g, s op) string {
	if why := v.cause(m, g, s); why != "" {
		return why
	}
	for _, other := range m.settles {
		if other.I == s.I || other.Attempt != g.Attempt || !other.maybe() || other.T0 >= s.T1 || other.F == history.Extend {
			continue
		}
		// An ack that is repeated hears that it is acked, and so does who attaches again.
		if other.F != history.Ack || s.F != history.Ack && s.F != history.Attach {
			return "settled"
		}
	}
	if c := v.consumers[g.Proc]; c != nil && slices.ContainsFunc(c.gone, func(o op) bool { return o.T0 <= s.T1 && o.T1 >= g.T0 }) {
		return "given up" // whether that had a cause givenUp says
	}
	if slices.ContainsFunc(v.admins, func(a op) bool { return a.maybe() && a.T0 < s.T1 && a.end() >= g.T0 && removes(a, m) }) {
		return "removed"
	}
	if v.restoredWithin(g.T0, s.T1) {
		return "restored"
	}
	return ""
}
