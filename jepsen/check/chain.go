package check

import (
	"slices"
	"strconv"
	"strings"

	"onceq/jepsen/history"
)

// torn: an ack that publishes an output in the same step does both or nothing. So
// a message that left its queue that way has exactly one output, and once there is
// one the message is never handed out again.
func torn(v *view, r *Report) {
	outputs := map[string][]*message{}
	for _, m := range v.order {
		if in, _, ok := outputOf(m.id); ok {
			if _, there := m.placed(); there {
				outputs[in] = append(outputs[in], m)
			}
		}
	}
	for _, m := range v.order {
		outs := outputs[m.id]
		if len(outs) > 1 {
			a, _ := outs[0].placed()
			b, _ := outs[1].placed()
			r.broken("torn", m.id, []op{a, b}, "it has the outputs %s and %s", outs[0].id, outs[1].id)
		}
		for _, out := range outs {
			_, attempt, _ := outputOf(out.id)
			for _, g := range m.grants {
				if g.Attempt > attempt {
					o, _ := out.placed()
					r.broken("torn", m.id, []op{o, g}, "attempt %d published %s, and then %s got attempt %d", attempt, out.id, g.Proc, g.Attempt)
				}
			}
		}
		if v.drained() && len(outs) == 0 && m.chained() && !v.removed(m) {
			r.broken("torn", m.id, m.settles, "it is gone, and there is no output of it")
		}
	}
}

// outputOf reads the input and the attempt out of the id of an output.
func outputOf(id string) (input string, attempt int, ok bool) {
	i := strings.LastIndexByte(id, '>')
	if i < 0 {
		return "", 0, false
	}
	number, _, _ := strings.Cut(id[i+1:], ".")
	attempt, err := strconv.Atoi(number)
	return id[:i], attempt, err == nil
}

// chained says that it was stored and can only have been acked together with an
// output.
func (m *message) chained() bool {
	_, there := m.placed()
	return there && m.mayBeAcked() && !slices.ContainsFunc(m.settles, func(s op) bool {
		return s.F == history.Ack && s.maybe() && s.Text != history.Chained
	})
}
