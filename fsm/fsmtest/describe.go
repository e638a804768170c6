package fsmtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
)

// Describe says what an entry did in the words of Model.Apply. Losses are
// sorted, since their order carries no meaning.
func Describe(eff *fsm.Effects) []string {
	var out []string
	for _, r := range eff.Results {
		out = append(out, describe(r))
	}
	for _, d := range eff.Deliveries {
		out = append(out, fmt.Sprintf("-> %x/%d #%d q%d/p%d.%d attempt %d until %v%s", d.Consumer[:4], d.N, d.Number, d.Queue, d.Lane, d.Offset, d.Attempt, time.Duration(d.Deadline), map[bool]string{true: " restored"}[d.Restored]))
	}
	var lost []string
	for _, l := range eff.Lost {
		if l.Gone {
			lost = append(lost, fmt.Sprintf("gone %x/%d", l.Consumer[:4], l.N))
		}
		for _, d := range l.Lost {
			for n := d.From; n <= d.To; n++ {
				lost = append(lost, fmt.Sprintf("lost %x/%d #%d %v", l.Consumer[:4], l.N, n, wire.LeaseState(d.State)))
			}
		}
	}
	return append(out, SortLosses(lost)...)
}

// SortLosses sorts the lines of what Model.Apply returned that tell losses,
// which come last.
func SortLosses(lines []string) []string {
	first := len(lines)
	for first > 0 && (strings.HasPrefix(lines[first-1], "lost ") || strings.HasPrefix(lines[first-1], "gone ")) {
		first--
	}
	slices.Sort(lines[first:])
	return lines
}

func describe(r fsm.Result) string {
	st := wire.Status(r.Status).String()
	switch r.Kind {
	case fsm.KindOpenSession:
		switch r.Status {
		case fsm.StatusOK:
			s := r.Session
			return fmt.Sprintf("ok s%d epoch %d floor %d next %d", s.Number, s.Epoch, s.Floor, s.Next)
		case fsm.StatusEpochMismatch:
			return fmt.Sprintf("epoch mismatch %d", r.Session.Epoch)
		}
	case fsm.KindPublish, fsm.KindSeal, fsm.KindAckPublish:
		var out []string
		for _, p := range r.Publish {
			one := fmt.Sprintf("%d %v", p.Sequence, wire.Status(p.Status))
			if p.Status == fsm.StatusOK {
				places := p.Outputs
				if places == nil && p.Count > 0 {
					places = []fsm.Position{{Queue: p.Queue, Lane: p.Lane, Offset: p.Offset, Count: p.Count}}
				}
				var at []string
				for _, x := range places {
					at = append(at, fmt.Sprintf("q%d/p%d.%d+%d", x.Queue, x.Lane, x.Offset, x.Count))
				}
				one += " " + strings.Join(at, " ")
				if p.Duplicate {
					one += " duplicate"
				}
			}
			out = append(out, one)
		}
		if out == nil {
			if r.Status == fsm.StatusOK {
				return ""
			}
			return st
		}
		return strings.Join(out, ", ")
	case fsm.KindAttach:
		if r.Status == fsm.StatusOK {
			return fmt.Sprintf("ok q%d next %d", r.Attach.Queue, r.Attach.Next) + numbers(r.Attach.States)
		}
	case fsm.KindReceive, fsm.KindRelease:
		if r.Status == fsm.StatusOK || r.Status == fsm.StatusStale {
			st = fmt.Sprintf("%s q%d next %d", st, r.Receive.Queue, r.Receive.Next)
		}
		for _, d := range r.Receive.Deliveries {
			st += fmt.Sprintf(" #%d q%d/p%d.%d attempt %d until %v", d.Number, d.Queue, d.Lane, d.Offset, d.Attempt, time.Duration(d.Deadline))
		}
		return st
	case fsm.KindSettle:
		return st + numbers(r.Settle)
	case fsm.KindQueueCreate:
		if r.Status == fsm.StatusOK {
			return fmt.Sprintf("ok q%d", r.Queue.Number)
		}
	case fsm.KindEdit:
		for _, e := range r.Edits {
			st += fmt.Sprintf(" %d", e)
		}
	case fsm.KindQueueDelete, fsm.KindQueuePurge:
		return fmt.Sprintf("%s removed %d", st, r.Removed)
	}
	return st
}

func numbers(ds []fsm.DeliveryState) string {
	out := ""
	for _, d := range ds {
		for n := d.From; n <= d.To; n++ {
			out += fmt.Sprintf(" %d:%v", n, wire.LeaseState(d.State))
		}
	}
	return out
}
