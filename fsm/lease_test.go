package fsm_test

import (
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// A delivery is held until its lease ends, however it does, and no other is held in
// its place.
func TestHolds_UntilTheLeaseEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(m *machine){
		"ack":        func(m *machine) { m.apply(ack(1, 1, 1, 1)) },
		"lease time": func(m *machine) { m.now += time.Hour; m.apply() },
		"purge": func(m *machine) {
			m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{1}}))
		},
		"delete": func(m *machine) { m.apply(fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 1})) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, fsm.Limits{})
			eff := m.apply(create("q"), open(1), attach(1, 1, "q", 1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "order")))
			d := eff.Deliveries[0]
			other, elsewhere := d, d
			other.Number++
			elsewhere.Offset++
			if !m.Holds(&d) || m.Holds(&other) || m.Holds(&elsewhere) {
				t.Fatalf("%+v is not held, or another", d)
			}
			if end(m); m.Holds(&d) {
				t.Errorf("%+v is held", d)
			}
		})
	}
}
