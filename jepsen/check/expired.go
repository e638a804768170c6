package check

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"onceq/jepsen/history"
)

// expiredLate is how long after its time a message may still be handed out while
// nothing is broken: its time is looked at with the next entry, and there is one each
// second at least.
const expiredLate = 3 * int64(time.Second)

// expired: a message that nobody has when it is too old is gone, and counted. Not
// before: cluster time never runs ahead. After that it is not handed out, as far as
// that can be told: cluster time stands still while nobody leads.
func expired(v *view, r *Report) {
	ran := v.ran()
	times := map[string][]int64{} // by queue, of what nobody has acked for certain
	for _, m := range v.order {
		if at := m.tooOldAt(); at < never {
			afterItsTime(v, ran, m, r)
			if !m.ackedForCertain() {
				key := m.publishes[0].Key
				times[key] = append(times[key], at)
			}
		}
	}
	for _, all := range times {
		slices.Sort(all)
	}
	for _, o := range v.queues {
		most, _ := slices.BinarySearch(times[o.Key], o.T1+v.setup.Epsilon+1)
		if o.Queue.TooOld > uint64(most) {
			r.broken("expired", o.Key, []op{o}, "the cluster counts %d messages as too old, and of those that nobody has acked %d had reached their time", o.Queue.TooOld, most)
			break // what is counted once stays counted
		}
	}
	if !v.drained() || len(v.restores) > 0 {
		return
	}
	last := v.countedLast()
	for _, key := range slices.Sorted(maps.Keys(last)) {
		goneUncounted(v, last[key], r)
	}
}

// tooOldAt is the earliest moment at which a message can be too old, never when it
// cannot be.
func (m *message) tooOldAt() int64 {
	at := int64(never)
	for _, p := range m.publishes {
		if p.TTL > 0 && p.maybe() {
			at = min(at, p.T0+p.TTL)
		}
	}
	return at
}

func (m *message) ackedForCertain() bool {
	return slices.ContainsFunc(m.settles, func(s op) bool { return s.F == history.Ack && s.Type == history.OK })
}

// afterItsTime counts the time that passed for certain, see ran, and not that in which
// the harness stood still, and with it maybe the machine. Nor that in which who got it had
// heard nothing from the cluster: when it is back it gets what it was given before, and
// holds.
func afterItsTime(v *view, ran []stretch, m *message, r *Report) {
	p, ok := m.confirmed()
	if !ok || p.TTL == 0 {
		return
	}
	for _, g := range m.grants {
		passed := int64(0)
		for _, c := range ran {
			from, to := max(c.from, p.T1), min(c.to, g.T0)
			passed += max(0, to-from-v.silentFor(g.Proc, from, to)-v.stalled(from, to))
		}
		if late := passed - p.TTL; late > expiredLate+v.epsilon(p.T0, g.T1) {
			r.broken("expired", m.id, []op{p, g}, "%s got it when it had been too old for %.3f s at least", g.Proc, float64(late)/1e9)
			return
		}
	}
}

// growsEvery is how long there may be nothing new that a leader has applied: there is an
// entry each second, and a look each quarter of one. What is not committed for longer
// stops cluster time.
const growsEvery = 3 * int64(time.Second) / 2

// ran are stretches in which cluster time ran: nothing was broken, one node led all the
// time, and what it had applied grew. Without a fault it may stand still too, where the
// machine is too busy for the nodes to hear each other in time.
func (v *view) ran() (all []stretch) {
	type leadership struct {
		node string
		life int
		term uint64
	}
	type seen struct {
		applied uint64
		grown   op // the first look at which it was that
		began   int64
	}
	last := map[leadership]*seen{}
	for _, o := range v.states {
		if o.State.Role != "leader" {
			continue
		}
		l := leadership{o.Node, o.Life, o.State.Term}
		s := last[l]
		switch {
		case s == nil:
			last[l] = &seen{o.State.Applied, o, o.T1}
		case o.State.Applied > s.applied:
			if o.T0-s.grown.T1 > growsEvery {
				s.began = o.T1
			}
			for _, c := range v.calms {
				if from, to := max(s.began, c.T0), min(o.T0, c.T1); from < to {
					all = append(all, stretch{from, to})
				}
			}
			s.applied, s.grown, s.began = o.State.Applied, o, max(s.began, o.T0)
		}
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
	joined := all[:0]
	for _, x := range all {
		if n := len(joined); n > 0 && x.from <= joined[n-1].to {
			joined[n-1].to = max(joined[n-1].to, x.to)
		} else {
			joined = append(joined, x)
		}
	}
	return joined
}

// silentFor is for how long a consumer heard nothing between two moments.
func (v *view) silentFor(proc string, from, to int64) int64 {
	if c := v.consumers[proc]; c != nil {
		return overlap(c.silent, from, to)
	}
	return 0
}

// countedLast is what was counted last of each queue, after the drain.
func (v *view) countedLast() map[string]op {
	end := v.drains[len(v.drains)-1]
	last := map[string]op{}
	for _, o := range v.queues {
		if o.T0 >= end.T1 {
			last[o.Key] = o
		}
	}
	return last
}

// goneUncounted: of an empty queue everything was acked or is counted as too old.
func goneUncounted(v *view, o op, r *Report) {
	q := o.Queue
	if q.Purged+q.Deleted+q.DeadLettered+q.Moved > 0 {
		return // of what is gone by these nobody knows whether it was too old
	}
	vanished := uint64(0)
	var seen []op
	for _, m := range v.order {
		p, ok := m.confirmed()
		if ok && p.Key == o.Key && p.Number == o.Number && p.TTL > 0 && p.T1 <= o.T0 && !m.mayBeAcked() {
			vanished++
			seen = []op{p, o}
		}
	}
	if vanished > q.TooOld {
		r.broken("expired", o.Key, seen, "%d messages were confirmed and nobody has acked them, and the cluster counts %d as too old", vanished, q.TooOld)
	}
}

// tooOldInTheEnd is how many messages the cluster counts as too old after the drain.
func (v *view) tooOldInTheEnd() int {
	if !v.drained() {
		return 0
	}
	sum := 0
	for _, o := range v.countedLast() {
		sum += int(o.Queue.TooOld)
	}
	return sum
}
