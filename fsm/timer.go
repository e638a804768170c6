package fsm

import "container/heap"

// A timer wakes its owner at a moment of cluster time. Each session, consumer
// and queue owns one, so the heap is as large as the tables and not as what
// passes through them: a lease that is acked long before its deadline leaves
// nothing behind.
//
// at may be earlier than what the owner waits for: the owner then looks, and
// sets it anew. Because the order in which due owners are served decides where
// an entry's budget ends, at is part of the state and of the snapshot, and
// ties are broken by kind and id.
type timer struct {
	at   Time
	kind timerKind
	id   uint64
	pos  int // in the heap, -1 when not in it
}

type timerKind uint8

const (
	timerConsumer timerKind = 1
	timerQueue    timerKind = 2
	timerSession  timerKind = 3
)

type timers struct{ h timerHeap }

// set moves a timer to a moment; never takes it out.
func (ts *timers) set(t *timer, at Time) {
	if t.pos >= 0 {
		switch {
		case at == never:
			heap.Remove(&ts.h, t.pos)
		case at != t.at:
			t.at = at
			heap.Fix(&ts.h, t.pos)
		}
	} else if at != never {
		t.at = at
		heap.Push(&ts.h, t)
	}
	t.at = at
}

// first returns the earliest timer, nil for none.
func (ts *timers) first() *timer {
	if len(ts.h) == 0 {
		return nil
	}
	return ts.h[0]
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.kind != b.kind {
		return a.kind < b.kind
	}
	return a.id < b.id
}
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.pos = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.pos = -1
	return t
}
