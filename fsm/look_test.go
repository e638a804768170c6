package fsm_test

import (
	"fmt"
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// TestPeek_ManyRecords_ComesInBoundedSteps: a look that finds little among many
// records stops on its way, and goes on where it stopped; what it finds is complete
// and in order.
func TestPeek_ManyRecords_ComesInBoundedSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	const n = 3 * fsm.PeekScanMax
	seq := uint64(0)
	publish := func(priority uint8, ms []wire.Message) {
		seq++
		for i := range ms {
			ms[i].Priority = priority
		}
		f := fsmtest.Frame(1, 1, 1, seq, 0, "q")
		f.Publishes[0].Messages = ms
		m.apply(fsmtest.New(f))
	}
	// Every fourth waits behind the first of its key, the others are ready; three of
	// the second lane are delayed.
	for at := 0; at < n; at += 4096 {
		ms := make([]wire.Message, 4096)
		for i := range ms {
			if ms[i].OrderingKey = fmt.Sprint("key-", at+i); (at+i)%4 == 3 {
				ms[i].OrderingKey = "key-0"
			}
		}
		publish(0, ms)
	}
	publish(3, []wire.Message{{Delay: 1e9}, {Delay: 2e9}, {Delay: 3e9}})
	for state, want := range map[fsm.MessageState]int{
		fsm.MessageReady: n - n/4, fsm.MessageBlocked: n / 4, fsm.MessageDelayed: 3, fsm.MessageParked: 0,
	} {
		if found := lookAtAll(t, m, state); found != want {
			t.Errorf("state %d: %d found, expected %d", state, found, want)
		}
	}
}

// lookAtAll looks at all messages of queue q in a state, page by page, sees that no step
// visits more than it may, and that all come in order; it returns how many there are.
func lookAtAll(t *testing.T, m *machine, state fsm.MessageState) (found int) {
	t.Helper()
	from, last := fsm.MessageInfo{}, fsm.MessageInfo{Lane: fsm.Priorities}
	for {
		look, ok := m.Look("q", state, from, fsm.PeekMax)
		if !ok {
			t.Fatal("no queue")
		}
		for done := false; !done; {
			done = m.LookOn(look)
			if v := fsm.Visited(look); v > fsm.PeekScanMax {
				t.Fatalf("state %d: %d rows are visited in one step, at most %d may be", state, v, fsm.PeekScanMax)
			}
		}
		for _, i := range look.Found() {
			if i.State != state || i.Lane > last.Lane || i.Lane == last.Lane && i.Offset <= last.Offset {
				t.Fatalf("state %d: lane %d offset %d in state %d after lane %d offset %d", state, i.Lane, i.Offset, i.State, last.Lane, last.Offset)
			}
			last = i
			found++
		}
		if len(look.Found()) < fsm.PeekMax {
			return found
		}
		from = fsm.MessageInfo{Lane: last.Lane, Offset: last.Offset + 1}
	}
}

// TestLook_WhateverIsPassedOver_StepsAreBounded: leases of many consumers, and a few
// parked and returned messages among many that are gone.
func TestLook_WhateverIsPassedOver_StepsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	const each, consumers = fsm.PeekScanMax * 3 / 4, 5
	bodies := make([]string, each)
	for c := range byte(consumers) {
		m.apply(fsmtest.New(fsmtest.Frame(1, 1, 1, uint64(c)+1, 0, "q", bodies...)), attach(c+1, 1, "q", each))
	}
	if found := lookAtAll(t, m, fsm.MessageLeased); found != each*consumers {
		t.Fatalf("%d leases found, expected %d", found, each*consumers)
	}
	// The holder of one of the last is found in steps as well.
	one, _ := m.LookAt("q", 0, each*consumers-1)
	steps := 1
	for ; !m.LookOn(one); steps++ {
		if v := fsm.Visited(one); v > fsm.PeekScanMax {
			t.Fatalf("%d rows are visited in one step", v)
		}
	}
	if f := one.Found(); len(f) != 1 || f[0].State != fsm.MessageLeased || f[0].Consumer[0] != consumers || steps < 3 {
		t.Fatalf("%+v in %d steps", f, steps)
	}
	// All but a few are acked, a few parked, and one comes back.
	done := wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Items: []wire.SettleItem{
		{From: 1, To: each - 3, Verb: wire.VerbAck}, {From: each - 2, To: each - 1, Verb: wire.VerbReject}, {From: each, To: each, Verb: wire.VerbNack, Time: 1},
	}}
	m.apply(fsmtest.New(wire.QueuePause{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{1}, Paused: true}))
	m.apply(fsmtest.New(done))
	m.now++
	m.apply()
	for state, want := range map[fsm.MessageState]int{fsm.MessageParked: 2, fsm.MessageReady: 1, fsm.MessageLeased: each * (consumers - 1), fsm.MessageDelayed: 0} {
		if found := lookAtAll(t, m, state); found != want {
			t.Errorf("state %d: %d found, expected %d", state, found, want)
		}
	}
}

// TestLook_WhileThingsChange_EndsAndTellsWhatIs: between two steps messages are acked,
// a queue is purged, and another deleted.
func TestLook_WhileThingsChange_EndsAndTellsWhatIs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func() fsmtest.Command{
		"acked": func() fsmtest.Command {
			return fsmtest.New(wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Items: []wire.SettleItem{{From: 1, To: 2, Verb: wire.VerbAck}}})
		},
		"purged": func() fsmtest.Command {
			return fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{1}})
		},
		"deleted": func() fsmtest.Command {
			return fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 1})
		},
	} {
		m := newMachine(t, fsm.Limits{})
		m.apply(create("q"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b")), attach(1, 1, "q", 2))
		look, _ := m.Look("q", fsm.MessageLeased, fsm.MessageInfo{}, 10)
		if m.LookOn(look) {
			t.Fatalf("%s: nothing is left to tell", name)
		}
		m.apply(change())
		for !m.LookOn(look) {
		}
		if f := look.Found(); len(f) != 0 {
			t.Errorf("%s: %+v is told of", name, f)
		}
		look.Close()
	}
}

func TestConsumers_ListedFromAnOrdinalOn(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), create("other"))
	const n = 100
	for c := range byte(n) {
		m.apply(attach(c+1, 1, []string{"q", "other"}[c%2], 1))
	}
	m.apply(fsmtest.New(wire.Leave{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{4}, N: 1}))
	for queue, want := range map[string]int{"": n - 1, "q": n / 2, "other": n/2 - 1, "none": 0} {
		found, from := 0, uint64(0)
		for {
			some, next, visited := fsm.ConsumersVisited(m.Machine, queue, from, 7)
			if next != 0 || visited != len(some) {
				t.Fatalf("%d consumers told of %d visited, and to go on at %d", len(some), visited, next)
			}
			for _, c := range some {
				if c.Ordinal < from || queue != "" && c.Queue != queue {
					t.Fatalf("%q: from %d on: %+v", queue, from, c)
				}
				from = c.Ordinal + 1
			}
			found += len(some)
			if len(some) < 7 {
				break
			}
		}
		if found != want {
			t.Errorf("queue %q: %d consumers listed, expected %d", queue, found, want)
		}
	}
}

// TestConsumers_ManyThatAreAboutToGo_ArePassedInSteps: a leader change has cut off
// more than timers remove at once.
func TestConsumers_ManyThatAreAboutToGo_ArePassedInSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{TimerBudget: 1})
	m.apply(create("q"))
	const n = fsm.PeekScanMax + 10
	leave := []fsmtest.Command{}
	for i := range n {
		id := wire.ConsumerID{1, byte(i >> 16), byte(i >> 8), byte(i)}
		m.apply(fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: id, N: 1, Queue: "q", Credit: 1}))
		leave = append(leave, fsmtest.New(wire.Leave{Incarnation: inc, Group: grp, Consumer: id, N: 1}))
	}
	m.apply(leave[:n-1]...)
	found, next, visited := fsm.ConsumersVisited(m.Machine, "q", 0, 5)
	if len(found) != 0 || visited != fsm.PeekScanMax || next == 0 {
		t.Fatalf("%d found of %d visited, next %d", len(found), visited, next)
	}
	found, next, _ = fsm.ConsumersVisited(m.Machine, "q", next, 5)
	if len(found) != 1 || found[0].Ordinal != n || next != 0 {
		t.Fatalf("%+v, next %d", found, next)
	}
}

func TestSessions_ListedFromANumberOn(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	for n := range byte(200) {
		m.apply(open(n + 1))
	}
	from := uint64(1)
	for seen := uint64(0); seen < 200; {
		some, visited := fsm.SessionsVisited(m.Machine, from, 7)
		if visited > 8 {
			t.Fatalf("%d sessions are visited for %d", visited, len(some))
		}
		if len(some) == 0 {
			t.Fatalf("%d of 200 sessions are listed", seen)
		}
		for _, s := range some {
			if seen++; s.Number != seen {
				t.Fatalf("session %d comes as number %d", s.Number, seen)
			}
		}
		from = seen + 1
	}
	if more := m.Sessions(from, 7); len(more) != 0 {
		t.Errorf("%d sessions behind the last", len(more))
	}
}
