package fsm_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

var full = flag.Bool("full", false, "full size: 10,000 queues, 1,000,000 sessions, a backlog of 10 million")

// TestSize_ManyQueuesAndSessions_CostLittleAndWork prints what one that does nothing
// costs, and uses the first and the last of them.
func TestSize_ManyQueuesAndSessions_CostLittleAndWork(t *testing.T) {
	queues, sessions := 500, 20_000
	if *full {
		queues, sessions = 10_000, 1_000_000
	}
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}))
	fill := func(what string, n int, most uint64, one func(i int) fsmtest.Command) {
		t.Helper()
		before := heap()
		for i := 0; i < n; {
			var cs []fsmtest.Command
			for ; i < n && len(cs) < 1000; i++ {
				cs = append(cs, one(i))
			}
			for _, r := range m.apply(cs...).Results {
				if r.Status != fsm.StatusOK {
					t.Fatalf("%s: status %d", what, r.Status)
				}
			}
		}
		m.Digest() // forget what has changed
		each := (heap() - before) / uint64(n)
		t.Logf("%d %ss: %d B each", n, what, each)
		if each > most {
			t.Errorf("an idle %s costs %d B, %d were thought enough", what, each, most)
		}
	}
	fill("queue", queues, 4096, func(i int) fsmtest.Command { return create(fmt.Sprint("queue-", i)) })
	fill("session", sessions, 1024, func(i int) fsmtest.Command {
		var n wire.Nonce
		binary.BigEndian.PutUint64(n[:], uint64(i)+1)
		return fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: n})
	})
	for _, s := range []int{1, sessions} {
		for _, q := range []int{0, queues - 1} {
			name := fmt.Sprint("queue-", q)
			r := m.apply(fsmtest.New(fsmtest.Frame(uint64(s), 1, 1, uint64(q)+1, 0, name, "x"))).Results[0].Publish[0]
			if r.Status != fsm.StatusOK {
				t.Fatalf("publish to %s by session %d: status %d", name, s, r.Status)
			}
		}
	}
	began := time.Now()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("frozen in %v", time.Since(began))
	snap.Release()
}

// TestWork_DoesNotGrowWithTheBacklog prints what a message costs behind a short and
// behind a long backlog: of plain messages, and of messages with an ordering key each.
func TestWork_DoesNotGrowWithTheBacklog(t *testing.T) {
	for _, c := range []struct {
		what       string
		long, full uint64
		message    func(seq uint64, i int) wire.Message
	}{
		{"plain messages", 200_000, 10_000_000, plainMessage},
		{"ordering keys", 50_000, 1_000_000, func(seq uint64, i int) wire.Message {
			return wire.Message{OrderingKey: fmt.Sprintf("key-%d", seq*1000+uint64(i))}
		}},
	} {
		long, n := c.long, uint64(20_000)
		if *full {
			long, n = c.full, 200_000
		}
		cost := func(backlog uint64) (each time.Duration, bytes uint64) {
			m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
			m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
			seq, before := uint64(1), heap()
			for ; (seq-1)*1000 < backlog; seq++ {
				ms := make([]wire.Message, 1000)
				for i := range ms {
					ms[i] = c.message(seq, i)
				}
				f := wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: seq, Queue: "q"}
				f.Publishes = []wire.Publish{{Sequence: seq, Messages: ms}}
				m.apply(fsmtest.New(f))
			}
			m.Digest() // forget what has changed
			bytes = (heap() - before) / backlog
			m.apply(attach(1, 1, "q", 1024))
			entries := frames(seq, n, c.message)
			began := time.Now()
			for _, e := range entries {
				if _, err := m.Apply(1, e); err != nil {
					t.Fatal(err)
				}
			}
			if got := m.Counts().Messages; got < backlog {
				t.Fatalf("%d messages are left of a backlog of %d", got, backlog)
			}
			return time.Since(began) / time.Duration(n), bytes
		}
		cost(1000) // warm
		short, _ := cost(1000)
		behind, bytes := cost(long)
		t.Logf("%s: publish, lease and ack: %v a message behind 1,000, %v behind %d: ratio %.2f, %d B each", c.what, short, behind, long, float64(behind)/float64(short), bytes)
	}
}

// TestWork_DoesNotGrowWithWhatWaitsBehindAKey prints what an entry costs in which
// messages of one key are too old, behind a head that a consumer holds.
func TestWork_DoesNotGrowWithWhatWaitsBehindAKey(t *testing.T) {
	backlog := uint64(100_000)
	if *full {
		backlog = 2_000_000
	}
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), open(1),
		fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "q", Settings: wire.QueueSettings{LeaseTime: time.Hour, TTL: time.Minute}}))
	ms := make([]wire.Message, 1000)
	for i := range ms {
		ms[i] = wire.Message{Body: []byte("x"), OrderingKey: "k"}
	}
	for seq := uint64(1); (seq-1)*1000 < backlog; seq++ {
		m.apply(fsmtest.New(wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: seq, Queue: "q",
			Publishes: []wire.Publish{{Sequence: seq, Checksum: wire.PublishChecksum("q", ms), Messages: ms}}}))
	}
	m.apply(attach(1, 1, "q", 1))
	m.now = 2 * time.Minute
	longest := time.Duration(0)
	for more := true; more; {
		began := time.Now()
		more = m.apply().More
		longest = max(longest, time.Since(began))
	}
	if c := m.Counts(); c.Messages != 1 || c.Leases != 1 {
		t.Fatalf("%d messages are left, of which %d are leased: want the one that is leased", c.Messages, c.Leases)
	}
	t.Logf("%d messages behind a key expired, the longest entry took %v", backlog, longest)
}

// TestWork_ManyConsumers_NoEntryIsLong prints what the longest entry takes in which
// something happens to all consumers of a queue, and what a search over all leases does.
func TestWork_ManyConsumers_NoEntryIsLong(t *testing.T) {
	consumers, each := 500, uint32(4)
	if *full {
		consumers, each = 100_000, 80
	}
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
	for i := range consumers {
		id := wire.ConsumerID{1}
		binary.BigEndian.PutUint32(id[1:], uint32(i))
		m.apply(fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: id, N: 1, Queue: "q", Credit: each}))
	}
	held := uint64(consumers) * uint64(each)
	for seq := uint64(1); (seq-1)*10_000 < held; seq++ {
		m.apply(fsmtest.New(fsmtest.Frame(1, 1, seq, seq, 0, "q", make([]string, min(10_000, held-(seq-1)*10_000))...)))
	}
	m.Digest() // forget what has changed
	if c := m.Counts(); c.Leases != held || c.Consumers != uint64(consumers) {
		t.Fatalf("%+v", c)
	}
	for _, c := range []struct {
		what    string
		command fsmtest.Command
	}{
		{"release of one message", fsmtest.New(wire.Edit{Incarnation: inc, Group: grp, Number: 1, Verb: wire.EditRelease, Nonce: wire.Nonce{1}, Places: []wire.Place{{Offset: held - 1, Turn: 1}}})},
		{"a single active consumer", fsmtest.New(wire.QueueUpdate{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{1}, Settings: wire.QueueSettings{SingleActive: true}})},
		{"a new term", fsmtest.New(fsmtest.Term{Node: "n2"})},
		{"a purge", fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 2, Nonce: wire.Nonce{2}})},
	} {
		longest, entries := time.Duration(0), 0
		for cs := []fsmtest.Command{c.command}; ; cs = nil {
			began := time.Now()
			eff := m.apply(cs...)
			longest = max(longest, time.Since(began))
			entries++
			if cs != nil && eff.Results[0].Status != fsm.StatusOK {
				t.Fatalf("%s: %s", c.what, wire.Status(eff.Results[0].Status))
			}
			if !eff.More {
				break
			}
		}
		t.Logf("%s, with %d consumers that hold %d messages: the longest of %d entries took %v", c.what, consumers, held, entries, longest)
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
