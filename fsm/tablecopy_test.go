package fsm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// large makes a machine with so many sessions and keyed messages, and a tenth as
// many queues.
func large(tb testing.TB, n int) *machine {
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: tb}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
	var cs []fsmtest.Command
	for i := range n {
		var nonce wire.Nonce
		binary.BigEndian.PutUint64(nonce[:], uint64(i)+1)
		seq := uint64(i) + 1
		cs = append(cs,
			fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: nonce}),
			fsmtest.New(wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: seq, Queue: "q",
				Publishes: []wire.Publish{{Sequence: seq, Messages: []wire.Message{{OrderingKey: fmt.Sprint("customer-", i)}}}}}))
		if i%10 == 0 {
			cs = append(cs, create(fmt.Sprint("queue-", i)))
		}
		if len(cs) > 500 {
			m.apply(cs...)
			cs = nil
		}
	}
	m.apply(cs...)
	m.Digest()
	return m
}

// content is a snapshot's stream.
func content(tb testing.TB, m *machine) []byte {
	s, err := m.Snapshot()
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// What is left for the freeze is what has changed since the last piece, and not
// what there is; and what was copied over many entries is what is copied at once.
func TestCopy_LeavesTheFreezeWhatHasChanged(t *testing.T) {
	t.Parallel()
	m, same := large(t, 5000), large(t, 5000)
	next := uint64(5001)
	both := func(cs ...fsmtest.Command) { m.apply(cs...); same.apply(cs...) }
	m.BeginCopy()
	pieces := 0
	var room fsm.CopyRoom
	for {
		if pieces%3 == 0 {
			room.Make() // two of three find none, or what is left of it
		}
		left, walked := m.CopySome(8<<10, &room)
		if pieces++; walked && left == 0 {
			break
		}
		if pieces%10 == 0 { // of 11 sections' worth, one of each kind changes
			both(fsmtest.New(fsmtest.Frame(1, 1, next, next, 0, "q", "plain")))
			both(create(fmt.Sprint("new-", next)), open(byte(next%200)+2))
			next++
		}
	}
	if pieces < 50 {
		t.Fatalf("all was copied in %d pieces: the test shows nothing", pieces)
	}
	both(fsmtest.New(fsmtest.Frame(1, 1, next, next, 0, "q", "a", "b", "c")))
	if left, walked := m.CopySome(0, nil); left > 3 || !walked {
		t.Errorf("%d rows are left for the freeze after one publish, want its session and its queue", left)
	}
	// Purged: none of 5,000 records is in it, and none is looked at.
	q, _ := m.QueueByName("q")
	both(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: q.Number, Revision: q.Revision, Nonce: wire.Nonce{9}}))
	if left, _ := m.CopySome(0, nil); left > 3 {
		t.Errorf("%d rows are left after a purge", left)
	}
	if got, want := content(t, m), content(t, same); !bytes.Equal(got, want) {
		t.Errorf("the snapshot has %d bytes, copied at once it has %d, or they differ", len(got), len(want))
	}
	if left, walked := m.CopySome(1<<20, nil); left != 0 || !walked {
		t.Error("a copy goes on after its snapshot was taken")
	}
}

// BenchmarkFreeze shows how long Apply waits: at a freeze, and for a piece before
// it; the longest one tells as much of the machine. Publishes go on meanwhile.
func BenchmarkFreeze(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d/queues=%d/keyed=%d", n, n/10, n), func(b *testing.B) {
			if testing.Short() && n > 10_000 {
				b.Skip("takes half a minute")
			}
			m := large(b, n)
			next := uint64(n) + 1
			var freeze, whole time.Duration
			var pieces []time.Duration
			var room fsm.CopyRoom
			for range b.N {
				began := time.Now()
				m.BeginCopy()
				for {
					room.Make()
					t := time.Now()
					left, walked := m.CopySome(64<<10, &room)
					pieces = append(pieces, time.Since(t))
					if walked && left <= 64 {
						break
					}
					m.apply(fsmtest.New(fsmtest.Frame(1, 1, next, next, 0, "q", "plain")))
					next++
				}
				t := time.Now()
				s, err := m.Snapshot()
				freeze = max(freeze, time.Since(t))
				whole += time.Since(began)
				if err != nil {
					b.Fatal(err)
				}
				s.Release()
			}
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(freeze), "ms-freeze-max")
			slices.Sort(pieces)
			b.ReportMetric(ms(pieces[len(pieces)*99/100]), "ms-piece-p99")
			b.ReportMetric(ms(pieces[len(pieces)-1]), "ms-piece-max")
			b.ReportMetric(ms(whole)/float64(b.N), "ms-copy")
		})
	}
}
