package cluster

import (
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire/pack"
)

// A command that joins an open entry costs nothing but its share of the entry.
func TestAllocs_SubmitIntoAnOpenEntry(t *testing.T) {
	p := newProposer(proposerConfig{ended: make(chan struct{})})
	p.setPhase(preparing) // commands wait
	c := fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a body of some bytes"))
	done := func(o outcome) { t.Error("answered") }
	submit := func() { p.submit(fsm.KindPublish, c.Payload, done) }
	for range 2000 {
		submit()
	}
	if n := testing.AllocsPerRun(1000, submit); n > 0 {
		t.Errorf("%v allocations for a command", n)
	}
}

// bodyOf has the same body everywhere.
type bodyOf []byte

func (b bodyOf) Get(uint64, uint8, uint64) (int64, []byte, bool) { return 7, b, true }

// A frame of deliveries costs a few allocations, whatever is in it.
func TestAllocs_FrameOfDeliveries(t *testing.T) {
	const messages = 64
	h := newHub(bodyOf(make([]byte, 1024)), newClock(monotonic()))
	r := &registration{hub: h, consumer: consumerA, n: 1, conn: &nullConn{}, armed: true}
	ds := leases(1, 1, messages)
	w := pack.NewWriter(make([]byte, 0, 1<<20))
	if n := testing.AllocsPerRun(100, func() {
		r.push(ds)
		w.Reset()
		if !r.encode(w) {
			t.Fatal("nothing was encoded")
		}
	}); n > 16 {
		t.Errorf("%v allocations for a frame of %d deliveries, at most 16 are allowed", n, messages)
	}
}
