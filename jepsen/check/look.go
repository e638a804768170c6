package check

import "onceq/jepsen/history"

// staleLook: a look-up sees all that was answered before it was asked, whoever
// answers it. A node that led once and does not know better yet would deny what its
// successor has confirmed.
func staleLook(v *view, r *Report) {
	for _, m := range v.order {
		for _, l := range m.looks {
			for _, p := range m.publishes {
				if p.Type == history.OK {
					deny(r, m, p, l, history.LookedStored, p.Place())
				}
			}
			for _, s := range m.seals {
				if s.Type == history.OK && (s.Text == history.LookedStored || s.Text == history.LookedSealed) {
					deny(r, m, s, l, s.Text, s.Place())
				}
			}
		}
	}
}

// deny reports a look that contradicts an answer. That nothing is stored so far is
// true before the answer; that something else happened never is.
func deny(r *Report, m *message, answer, look op, outcome string, at history.Place) {
	switch {
	case look.Text == history.LookedNothing && answer.T1 < look.T0:
		r.broken("stale-look", m.id, []op{answer, look}, "it was answered as %s, and a look at %s afterwards says %s", outcome, look.Node, look.Text)
	case look.Text != history.LookedStored && look.Text != history.LookedSealed:
	case look.Text != outcome:
		r.broken("stale-look", m.id, []op{answer, look}, "it was answered as %s, and a look at %s says %s", outcome, look.Node, look.Text)
	case outcome == history.LookedStored && look.Place() != at:
		r.broken("stale-look", m.id, []op{answer, look}, "it is stored at %s, and a look at %s says at %s", at, look.Node, look.Place())
	}
}
