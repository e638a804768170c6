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

// TestExtend_ByLessThanAResumeLeaves_WakesNobodyBefore: since a consumer that attaches has
// all its leases for a lease time, there is nothing to look at before.
func TestExtend_ByLessThanAResumeLeaves_WakesNobodyBefore(t *testing.T) {
	t.Parallel()
	for version, want := range map[uint32]fsm.Time{3: fsm.Time(time.Minute + 1), fsm.MachineVersion: fsm.Time(time.Hour)} {
		m := newMachine(t, fsm.Limits{})
		create := fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "q", Settings: wire.QueueSettings{LeaseTime: time.Hour}})
		m.apply(fsmtest.New(fsmtest.Raise{Version: version}), create, open(1), attach(1, 1, "q", 1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a")))
		m.now = time.Minute
		extend := wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Done: 1, Items: []wire.SettleItem{{From: 1, To: 1, Verb: wire.VerbExtend, Time: 1}}}
		if eff := m.apply(fsmtest.New(extend)); eff.NextTimer != want {
			t.Errorf("version %d: the next timer is due at %v, expected %v", version, time.Duration(eff.NextTimer), time.Duration(want))
		}
		m.now = time.Hour
		if eff := m.apply(); len(eff.Lost) != 1 {
			t.Errorf("version %d: the lease has not ended: %+v", version, eff)
		}
	}
}
