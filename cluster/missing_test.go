package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// meddler are bodies before whose first reading something else happens: what may
// come between a lease and its delivery, at the worst moment.
type meddler struct {
	bodyStore
	first func()
}

func (m *meddler) Get(queue uint64, lane uint8, offset uint64) (int64, []byte, bool) {
	if f := m.first; f != nil {
		m.first = nil
		f()
	}
	return m.bodyStore.Get(queue, lane, offset)
}

// missing is a machine whose deliveries a hub sends.
type missing struct {
	t     *testing.T
	g     *group
	conn  *tapeConn
	index uint64
	now   fsm.Time
	ended []error
}

func newMissing(t *testing.T, bodies bodyStore) *missing {
	m := &missing{t: t, conn: &tapeConn{}}
	clk := newClock(monotonic())
	m.g = &group{node: "n1", dir: "the/directory", life: newLife(1), log: slog.New(slog.DiscardHandler), bodies: bodies,
		snaps: newSnapshotter(1<<30, 1<<30, time.Hour, nil, slog.New(slog.DiscardHandler)), clock: clk, fatal: func(err error) { m.ended = append(m.ended, err) }}
	m.g.machine = fsm.New(fsm.Config{Group: fsmtest.Group}, bodies)
	m.g.version = newMachineVersion(0, m.g.machine)
	m.g.hub = newHub(bodies, clk)
	m.g.hub.missing = m.g.missing
	m.g.hub.start()
	m.g.hub.connected(m.conn)
	const inc, grp = fsmtest.Incarnation, fsmtest.Group
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}),
		fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "dead"}),
		fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "orders", Settings: wire.QueueSettings{DeadLetter: "dead", DeliveryLimit: 1, TTL: 2 * time.Minute, LeaseTime: time.Minute}}),
		fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: wire.Nonce{1}}),
		fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID(consumerA), N: 1, Queue: "orders", Credit: 10, Done: 1}))
	m.g.hub.register(m.conn, consumerA, 1)
	return m
}

func (m *missing) apply(cs ...fsmtest.Command) *fsm.Effects {
	m.t.Helper()
	m.index++
	m.g.mu.Lock()
	eff, err := m.g.machine.Apply(m.index, fsmtest.Entry(m.index, m.now, 0, cs...))
	m.g.mu.Unlock()
	if err != nil {
		m.t.Fatal(err)
	}
	for i, r := range eff.Results {
		if r.Status != fsm.StatusOK {
			m.t.Fatalf("%+v: %v", cs[i], r.Status)
		}
	}
	m.g.hub.deliver(eff.Deliveries)
	m.g.hub.lost(eff.Lost)
	return eff
}

// publish stores two messages, which the consumer is leased at once, as 1 and 2.
func (m *missing) publish() {
	m.t.Helper()
	if eff := m.apply(fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "orders", "first", "second"))); len(eff.Deliveries) != 2 {
		m.t.Fatalf("deliveries %+v", eff.Deliveries)
	}
}

func (m *missing) settle(verb wire.SettleVerb) {
	m.apply(fsmtest.New(wire.Settle{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: wire.ConsumerID(consumerA), Done: 1,
		Items: []wire.SettleItem{{From: 1, To: 1, Verb: verb}}}))
}

func (m *missing) queue(name string) fsm.QueueInfo {
	q, ok := m.g.machine.QueueByName(name)
	if !ok {
		m.t.Fatal("no queue ", name)
	}
	return q
}

// snapshot returns what a leader would send.
func (m *missing) snapshot() io.ReadCloser {
	s, err := m.g.machine.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		m.t.Fatal(err)
	}
	return io.NopCloser(&b)
}

// eachBodyStore runs a test with bodies in memory, and on disk.
func eachBodyStore(t *testing.T, test func(t *testing.T, bodies bodyStore)) {
	t.Run(BodiesMemory, func(t *testing.T) { t.Parallel(); test(t, storage.NewMemory()) })
	t.Run(BodiesDisk, func(t *testing.T) {
		t.Parallel()
		s, err := storage.OpenPebble(storage.Options{Dir: filepath.Join(t.TempDir(), "bodies"), YoungBytes: 1, Logger: slog.New(slog.DiscardHandler),
			Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, s)
	})
}

// lose takes a body away behind the machine's back. A body that is just being written
// comes to the disk after its delete, and goes only then, so to look once is not enough:
// whoever walks over a view waits for all that was to be done before.
func (m *missing) lose(lane uint8, offset uint64) {
	m.t.Helper()
	number := m.queue("orders").Number
	m.g.bodies.Delete(number, lane, offset)
	v := m.g.bodies.Freeze()
	defer v.Release()
	if err := v.Each(func(uint64, uint8, uint64, int64, []byte) error { return nil }); err != nil {
		m.t.Fatal(err)
	}
	if _, _, ok := m.g.bodies.Get(number, lane, offset); ok {
		m.t.Fatal("the body is still there")
	}
}

// A message that is still leased, and whose body is nowhere, ends the node: it would
// never be delivered, and nobody would hear of it.
func TestMissingBody_OfALease_EndsTheNode(t *testing.T) {
	t.Parallel()
	eachBodyStore(t, func(t *testing.T, bodies bodyStore) {
		m := newMissing(t, bodies)
		m.publish()
		m.lose(0, 1)
		expect(t, m.conn, "deliver n=1 [1]")
		if len(m.ended) != 1 || !errors.Is(m.ended[0], ErrBodyMissing) {
			t.Fatalf("ended with %v", m.ended)
		}
		for _, want := range []string{"orders/1 ", "node n1", "onceq node verify the/directory", "onceq node wipe the/directory"} {
			if !strings.Contains(m.ended[0].Error(), want) {
				t.Errorf("%q does not say %q", m.ended[0], want)
			}
		}
	})
}

// So does one that is looked at, in whatever state it is.
func TestMissingBody_OfAMessageThatIsLookedAt_EndsTheNode(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]fsm.MessageState{"ready": fsm.MessageReady, "leased": fsm.MessageLeased, "parked": fsm.MessageParked} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachBodyStore(t, func(t *testing.T, bodies bodyStore) {
				m := newMissing(t, bodies)
				m.publish()
				switch name {
				case "ready":
					m.apply(fsmtest.New(wire.Leave{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: wire.ConsumerID(consumerA), N: 1, Done: 1,
						NotHandled: []wire.Range{{From: 1, To: 2}}}))
				case "parked": // there is nobody to take dead letters
					m.apply(fsmtest.New(wire.QueueDelete{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Number: m.queue("dead").Number, Force: true}))
					m.settle(wire.VerbReject)
				}
				number := m.queue("orders").Number
				found, _ := m.g.machine.Peek("orders", state, fsm.MessageInfo{}, 10)
				if len(found) == 0 {
					t.Fatal("nothing to look at")
				}
				if infos, _ := m.g.messageInfos(number, found, true); len(infos) != len(found) || len(infos[0].Message) == 0 || len(m.ended) != 0 {
					t.Fatalf("%+v, ended with %v", infos, m.ended)
				}
				m.lose(found[0].Lane, found[0].Offset)
				m.g.messageInfos(number, found, true)
				if len(m.ended) != 1 || !errors.Is(m.ended[0], ErrBodyMissing) {
					t.Fatalf("ended with %v", m.ended)
				}
			})
		})
	}
}

// What comes between a lease and its delivery, or a look and its answer, is no damage:
// the body is gone, or elsewhere, because the message is.
func TestMissingBody_OfAMessageThatHasGone_IsNoDamage(t *testing.T) {
	t.Parallel()
	const inc, grp = fsmtest.Incarnation, fsmtest.Group
	for name, between := range map[string]func(m *missing){
		"acked":         func(m *missing) { m.settle(wire.VerbAck) },
		"dead-lettered": func(m *missing) { m.settle(wire.VerbReject) },
		"lease ran out": func(m *missing) { m.now += fsm.Time(90 * time.Second); m.apply() },
		"expired":       func(m *missing) { m.now += fsm.Time(time.Hour); m.apply() },
		"purged": func(m *missing) {
			m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: m.queue("orders").Number, Revision: m.queue("orders").Revision, Nonce: wire.Nonce{9}}))
		},
		"deleted": func(m *missing) {
			m.apply(fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: m.queue("orders").Number}))
		},
		"another leader": func(m *missing) {
			m.g.hub.reset()
			m.apply(fsmtest.New(fsmtest.Term{Node: "n2"}))
			m.now += fsm.Time(time.Hour) // grace, leases, times to live
			m.apply()
		},
		"another snapshot": func(m *missing) {
			other := newMissing(m.t, storage.NewMemory())
			other.index = 100
			other.apply()
			if err := m.g.Restore(other.snapshot()); err != nil {
				m.t.Fatal(err)
			}
		},
		"its own snapshot": func(m *missing) {
			if err := m.g.Restore(m.snapshot()); err != nil {
				m.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachBodyStore(t, func(t *testing.T, bodies bodyStore) {
				m := newMissing(t, bodies)
				m.publish()
				number := m.queue("orders").Number
				found, _ := m.g.machine.Peek("orders", fsm.MessageLeased, fsm.MessageInfo{}, 10)
				meddled := &meddler{bodyStore: bodies, first: func() { between(m) }}
				m.g.hub.bodies, m.g.bodies = meddled, meddled
				m.conn.write(t)
				if len(m.ended) != 0 || meddled.first != nil {
					t.Fatalf("a delivery ended the node: %v", m.ended)
				}
				m.g.messageInfos(number, found, true)
				if len(m.ended) != 0 {
					t.Fatalf("a look ended the node: %v", m.ended)
				}
			})
		})
	}
}
