package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// removed says that a command may have removed the message.
func (v *view) removed(m *message) bool {
	return slices.ContainsFunc(v.admins, func(a op) bool { return a.maybe() && a.end() >= m.started() && removes(a, m) })
}

// removes says that a message that is there when the command is carried out is
// gone by it.
func removes(a op, m *message) bool {
	if !m.of(a.Key) {
		return false
	}
	switch a.Text {
	case history.Purge, history.Delete:
		return true
	case history.DeleteMessages:
		return slices.ContainsFunc(a.Listed, func(x history.Item) bool { return x.ID == m.id })
	}
	return false
}

// undead: what a command has removed is not handed out afterwards, and while a
// queue is paused nothing is. A delivery may be under way while a command is
// answered, so it counts only what a consumer got behind something that was
// published when the command had been answered.
func undead(v *view, r *Report) {
	if len(v.admins) == 0 {
		return
	}
	type stream struct{ proc, key string }
	streams := map[stream][]op{}
	var order []stream
	for _, m := range v.order {
		for _, g := range m.grants {
			s := stream{g.Proc, g.Key}
			if streams[s] == nil {
				order = append(order, s)
			}
			streams[s] = append(streams[s], g)
		}
	}
	for _, s := range order {
		slices.SortFunc(streams[s], func(a, b op) int { return cmp.Compare(a.I, b.I) })
		afterRemoval(v, streams[s], r)
	}
	for i, a := range v.admins {
		if a.Text == history.Pause && a.Type == history.OK {
			whilePaused(v, a, v.unpaused(i), r)
		}
	}
}

// afterRemoval walks along what one consumer got from one queue.
func afterRemoval(v *view, all []op, r *Report) {
	var newest op // of all so far, the one that was published last
	began := int64(-1)
	for _, g := range all {
		m := v.ids[g.ID]
		p, confirmed := m.confirmed()
		for _, a := range v.admins {
			if a.Type != history.OK || !confirmed || p.T1 >= a.T0 || a.T1 >= began || !removes(a, m) {
				continue
			}
			if a.Text == history.DeleteMessages && !deleted(a, m.id) {
				continue
			}
			r.broken("undead", m.id, []op{p, a, newest, g}, "%s (%s) was over before %s was published, which %s got first", a.Text, a.Key, newest.ID, g.Proc)
			return
		}
		if t := m.started(); t > began && t != never {
			newest, began = g, t
		}
	}
}

// deleted says that the cluster has answered that it deleted the message.
func deleted(a op, id string) bool {
	return slices.ContainsFunc(a.Listed, func(x history.Item) bool { return x.ID == id && x.State == "done" })
}

// unpaused is when the queue of the i-th command may be at work again.
func (v *view) unpaused(i int) int64 {
	for _, a := range v.admins[i+1:] {
		if a.Key == v.admins[i].Key && (a.Text == history.Unpause || a.Text == history.Delete) {
			return a.T0
		}
	}
	return never
}

func whilePaused(v *view, pause op, until int64, r *Report) {
	for _, m := range v.order {
		if !m.of(pause.Key) || m.started() <= pause.T1 {
			continue
		}
		for _, g := range m.grants {
			if g.T1 < until {
				r.broken("undead", m.id, []op{pause, m.publishes[0], g}, "%s was published while %s was paused, and %s got it before it was resumed", m.id, pause.Key, g.Proc)
				return
			}
		}
	}
}
