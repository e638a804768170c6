package fsm_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// noBodies is a BodyStore that keeps nothing: Apply reads none.
type noBodies struct{}

func (noBodies) Put(uint64, uint8, uint64, int64, []byte)                    {}
func (noBodies) Delete(uint64, uint8, uint64)                                {}
func (noBodies) DeleteRange(uint64, uint8, uint64, uint64)                   {}
func (noBodies) Move(uint64, uint8, uint64, uint64, uint8, uint64)           {}
func (noBodies) Reset()                                                      {}
func (noBodies) Freeze() fsm.FrozenBodies                                    { return noBodies{} }
func (noBodies) Each(func(uint64, uint8, uint64, int64, []byte) error) error { return nil }
func (noBodies) Release()                                                    {}

func benchMachine(b *testing.B) *machine {
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: b}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
	return m
}

func plainMessage(uint64, int) wire.Message { return wire.Message{} }

// frames encodes publishes of 16 B and their acks, in entries of 64.
func frames(first, n uint64, message func(seq uint64, i int) wire.Message) (entries [][]byte) {
	const batch = 64
	for seq := first; seq < first+n; seq += batch {
		f := wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: seq, Queue: "q"}
		for k := range uint64(batch) {
			m := message(seq+k, 0)
			m.Body = make([]byte, 16)
			f.Publishes = append(f.Publishes, wire.Publish{Sequence: seq + k, Messages: []wire.Message{m}})
		}
		done := wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Done: seq - first + 1, Items: []wire.SettleItem{{From: seq - first + 1, To: seq - first + batch, Verb: wire.VerbAck}}}
		entries = append(entries, fsmtest.Entry(1, 0, 0, fsmtest.New(f)), fsmtest.Entry(1, 0, 0, fsmtest.New(done)))
	}
	return entries
}

// BenchmarkPublishAck is the machine's share of a message of 16 B: publish,
// assign, ack, in frames of 64, behind a backlog. The backlog must make no
// difference.
func BenchmarkPublishAck(b *testing.B) {
	for _, backlog := range []uint64{0, 1_000, 10_000_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			m := benchMachine(b)
			bodies := make([]string, 10_000)
			seq := uint64(1)
			for left := backlog; left > 0; seq++ {
				n := min(left, uint64(len(bodies)))
				m.apply(fsmtest.New(fsmtest.Frame(1, 1, seq, seq, 0, "q", bodies[:n]...)))
				left -= n
			}
			m.apply(attach(1, 1, "q", 1024))
			entries := frames(seq, uint64(b.N), plainMessage)
			b.ReportAllocs()
			b.ResetTimer()
			for _, e := range entries {
				if _, err := m.Apply(1, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdle reports the memory of what does nothing.
func BenchmarkIdle(b *testing.B) {
	for name, fill := range map[string]func(m *machine, i int) fsmtest.Command{
		"queue": func(m *machine, i int) fsmtest.Command { return create(fmt.Sprint("queue-", i)) },
		"session": func(m *machine, i int) fsmtest.Command {
			var n wire.Nonce
			binary.BigEndian.PutUint64(n[:], uint64(i)+1)
			return fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: n})
		},
		"keyed message": func(m *machine, i int) fsmtest.Command {
			ms := []wire.Message{{OrderingKey: fmt.Sprint("customer-", i)}}
			seq := uint64(i) + 1
			return fsmtest.New(wire.PublishFrame{
				Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: seq, Queue: "q",
				Publishes: []wire.Publish{{Sequence: seq, Messages: ms}},
			})
		},
	} {
		b.Run(name, func(b *testing.B) {
			m := benchMachine(b)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range b.N {
				m.apply(fill(m, i))
			}
			m.Digest() // forget what has changed
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "B/each")
			runtime.KeepAlive(m)
		})
	}
}

// BenchmarkRestore shows how long Apply waits for an entry while a backup comes in,
// when it takes the place of what is there, and afterwards.
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		b.Run(fmt.Sprintf("sessions=%d/queues=%d", n, n/10), func(b *testing.B) {
			old := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: b}
			old.apply(fsmtest.New(fsmtest.Term{Node: "n1"}))
			for i := range n {
				var nonce wire.Nonce
				binary.BigEndian.PutUint64(nonce[:], uint64(i)+1)
				cs := []fsmtest.Command{fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: nonce})}
				if i%10 == 0 {
					cs = append(cs, create(fmt.Sprint("queue-", i)))
				}
				old.apply(cs...)
			}
			backup, err := fsmtest.TakeBackup(old.Machine, fsm.Config{Group: grp})
			if err != nil {
				b.Fatal(err)
			}
			longest := map[string]time.Duration{}
			for b.Loop() {
				m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: b}
				m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}))
				apply := func(what string, c fsmtest.Command) *fsm.Effects {
					began := time.Now()
					eff := m.apply(c)
					longest[what] = max(longest[what], time.Since(began))
					return eff
				}
				apply("begin", backup.Begin(inc, inc+1, 0, true))
				for _, c := range backup.Chunks(inc, inc+1) {
					apply("chunk", c)
				}
				if eff := apply("end", backup.End(inc, inc+1, false)); !eff.Restored {
					b.Fatalf("not restored: %+v", eff.Results)
				}
				for range n / 1000 {
					apply("later", create("later"))
				}
				apply("digest", fsmtest.New(fsmtest.DigestCommand{}))
			}
			for what, d := range longest {
				b.ReportMetric(d.Seconds()*1000, what+"-ms")
			}
		})
	}
}
