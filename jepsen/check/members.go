package check

import (
	"slices"
	"strings"

	"onceq/jepsen/history"
)

// members: the membership changes by one server at a time and never makes a node
// something that it was before. What one watcher is told is a row of configurations
// in the order in which they were.
func members(v *view, r *Report) {
	type watcher struct {
		was     map[string]op // servers that were members, when they were seen last
		removed map[string]op // those that were seen to be none any more
	}
	watchers := map[string]*watcher{}
	for _, o := range v.members {
		w := watchers[o.Proc]
		if w == nil {
			w = &watcher{map[string]op{}, map[string]op{}}
			watchers[o.Proc] = w
		}
		now := map[string]bool{}
		nodes := map[string]string{}
		voters := 0
		for _, x := range o.Listed {
			now[x.ID] = true
			if x.State != history.Voter {
				continue
			}
			voters++
			if other, twice := nodes[x.Node]; twice {
				r.broken("members", x.Node, []op{o}, "%s votes twice, as %s and as %s", x.Node, other, x.ID)
			}
			nodes[x.Node] = x.ID
			if gone, ok := w.removed[x.ID]; ok {
				r.broken("members", x.ID, []op{gone, o}, "%s was removed, and votes again", x.ID)
				delete(w.removed, x.ID)
			}
		}
		if least := v.setup.Nodes - 1; voters < least {
			r.broken("members", "", []op{o}, "%d nodes vote, and never more than one of %d is away", voters, v.setup.Nodes)
		}
		for id := range w.was {
			if !now[id] {
				w.removed[id] = o
				delete(w.was, id)
			}
		}
		for id := range now {
			w.was[id] = o
		}
	}
}

// memberChanges is how often a watcher was told of other voters than before.
func (v *view) memberChanges() (n int) {
	last := map[string]string{}
	for _, o := range v.members {
		var ids []string
		for _, x := range o.Listed {
			if x.State == history.Voter {
				ids = append(ids, x.ID)
			}
		}
		slices.Sort(ids)
		now := strings.Join(ids, " ")
		if was, ok := last[o.Proc]; ok && was != now {
			n++
		}
		last[o.Proc] = now
	}
	return n
}
