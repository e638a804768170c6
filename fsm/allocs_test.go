package fsm_test

import (
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

const entryMessages = 64 // of an entry made by frames

// applyAllocsMax is for an entry of 64 messages, published or acked, in a queue
// that keeps up: what the effects hold, and tables that grow. A message by itself
// costs none.
const applyAllocsMax = 10

func TestAllocs_Apply_NoneForAMessage(t *testing.T) {
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
	m.apply(attach(1, 1, "q", 1024))
	const warm, runs = 64, 64
	entries := frames(1, (warm+runs+1)*entryMessages, plainMessage)
	next := func() {
		// A publish and its ack.
		for range 2 {
			if _, err := m.Apply(1, entries[0]); err != nil {
				t.Fatal(err)
			}
			entries = entries[1:]
		}
	}
	for range warm {
		next()
	}
	if n := testing.AllocsPerRun(runs, next); n > 2*applyAllocsMax {
		t.Errorf("%v allocations for an entry of %d publishes and one of as many acks, at most %d are allowed", n, entryMessages, 2*applyAllocsMax)
	}
}

func TestAllocs_CheckOfAPublish_NoneForAMessage(t *testing.T) {
	f := wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: 1, Queue: "q"}
	ms := []wire.Message{{Body: make([]byte, 16)}}
	for seq := range uint64(entryMessages) {
		f.Publishes = append(f.Publishes, wire.Publish{Sequence: seq + 1, Messages: ms, Checksum: wire.PublishChecksum("q", ms)})
	}
	c := fsmtest.New(f)
	if n := testing.AllocsPerRun(100, func() {
		if err := fsm.Check(c.Kind, c.Payload, fsm.DefaultLimits()); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("%v allocations for a frame of %d publishes, at most 4 are allowed", n, entryMessages)
	}
}
