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
		found, steps := 0, 0
		from := fsm.MessageInfo{}
		last := fsm.MessageInfo{Lane: 9}
		for {
			steps++
			some, next, ok := m.Peek("q", state, from, fsm.PeekMax)
			if !ok {
				t.Fatal("no queue")
			}
			for _, i := range some {
				if i.State != state || i.Lane > last.Lane || i.Lane == last.Lane && found > 0 && i.Offset <= last.Offset {
					t.Fatalf("state %d: lane %d offset %d in state %d after lane %d offset %d", state, i.Lane, i.Offset, i.State, last.Lane, last.Offset)
				}
				last = i
				found++
			}
			switch {
			case next != nil:
				from = *next
			case len(some) == fsm.PeekMax:
				from = fsm.MessageInfo{Lane: last.Lane, Offset: last.Offset + 1}
			default:
				from = fsm.MessageInfo{}
			}
			if from.Lane == 0 && from.Offset == 0 {
				break
			}
		}
		if found != want {
			t.Errorf("state %d: %d found, expected %d", state, found, want)
		}
		if (state == fsm.MessageDelayed || state == fsm.MessageParked) && steps < 3 {
			t.Errorf("state %d: %d records were looked at in %d steps", state, n, steps)
		}
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
		some := m.Sessions(from, 7)
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
