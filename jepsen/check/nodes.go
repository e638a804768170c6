package check

import (
	"fmt"
	"strings"

	"onceq/jepsen/history"
)

// digests: replicas at one index are identical.
func digests(v *view, r *Report) {
	at := map[uint64]op{}
	for _, o := range v.states {
		if o.State.DigestIndex == 0 {
			continue
		}
		first, ok := at[o.State.DigestIndex]
		if !ok {
			at[o.State.DigestIndex] = o
		} else if first.State.Digest != o.State.Digest {
			r.broken("digest", o.Node, []op{first, o}, "at index %d %s has %s and %s has %s", o.State.DigestIndex, first.Node, first.State.Digest, o.Node, o.State.Digest)
		}
	}
}

// regress: what a node has applied it does not lose while it runs.
func regress(v *view, r *Report) {
	type life struct {
		node string
		n    int
	}
	last := map[life]op{}
	for _, o := range v.states {
		l := life{o.Node, o.Life}
		if before, ok := last[l]; ok && before.T1 <= o.T0 && before.State.Applied > o.State.Applied {
			r.broken("regress", o.Node, []op{before, o}, "applied %d, then %d, in one life", before.State.Applied, o.State.Applied)
		}
		last[l] = o
	}
}

// leaders: a term has at most one leader.
func leaders(v *view, r *Report) {
	of := map[uint64]op{}
	told := map[string]bool{}
	for _, o := range v.states {
		if o.State.Role != "leader" {
			continue
		}
		first, ok := of[o.State.Term]
		if !ok {
			of[o.State.Term] = o
			continue
		}
		pair := fmt.Sprint(o.State.Term, o.Node)
		if first.Node != o.Node && !told[pair] {
			told[pair] = true
			r.broken("leaders", o.Node, []op{first, o}, "%s and %s both led in term %d", first.Node, o.Node, o.State.Term)
		}
	}
}

// crash: most faults that we make are none that a node must end for. Where it has to,
// it says why: a disk that has failed it, damage that it has found. It does not fall
// over, and its state is that of the others.
func crash(v *view, r *Report) {
	for _, o := range v.crashes {
		r.broken("crash", o.Node, []op{o}, "%s ended by itself (%s): %s", o.Node, o.Err, o.Text)
	}
	for _, o := range v.gaveUps {
		if line := wrongEnd(o.Text); line != "" {
			r.broken("crash", o.Node, []op{o}, "%s had to end, and not for this: %s", o.Node, line)
		}
	}
}

// wrongEnd finds the line of a log that says that its process ended for what must never
// happen. That there is no memory the runtime tells by an end of its own, and as a bus
// error that a part of a file which is mapped into memory cannot be read, bbolt's: a
// pointer that leads nowhere is another signal. A node's last words have these lines
// wherever they stand in its log: proc picks them by their beginnings, which are the same
// there.
func wrongEnd(log string) string {
	unreadable := strings.Contains(log, "[signal SIGBUS")
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		switch {
		case unreadable && strings.HasPrefix(line, "fatal error: fault"):
		case strings.HasPrefix(line, "panic: "),
			strings.HasPrefix(line, "fatal error: ") && !strings.Contains(line, "memory"),
			strings.Contains(line, "WARNING: DATA RACE"),
			strings.Contains(line, "the replicas of the log do not agree"):
			return line
		}
	}
	return ""
}

// wentOn: after a write or fsync that failed nothing that a disk says can be
// trusted, and what is damaged could be handed out, so the node must end.
func wentOn(v *view, r *Report) {
	for _, o := range v.wentOn {
		r.broken("went-on", o.Node, []op{o}, "%s did not end: %s", o.Node, o.Text)
	}
}

// verify: what a node leaves behind when it ends in order is whole.
func verify(v *view, r *Report) {
	for _, o := range v.verified {
		if o.Type == history.Fail {
			r.broken("verify", o.Node, []op{o}, "%s had ended in order, and its files are not: %s", o.Node, o.Err)
		}
	}
}
