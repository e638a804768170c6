package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// inFlight is a session's publishes of which some have an answer.
type inFlight struct {
	t       *testing.T
	session wire.SessionOpened
	queue   string

	mu      sync.Mutex
	results map[uint64]wire.PublishResult // definite ones, by sequence
}

// send sends the sequences over one connection, without waiting, and returns a
// channel that is closed when each has an answer or the connection has ended.
func (f *inFlight) send(r *clustertest.Raw, sequences []uint64) <-chan struct{} {
	var answers sync.WaitGroup
	for _, seq := range sequences {
		w := pack.NewWriter(nil)
		wire.PublishFrame{
			Incarnation: r.Incarnation, Group: 1, Session: f.session.Session.Number, Epoch: f.session.Epoch, Floor: 1,
			Queue: f.queue, Publishes: []wire.Publish{clustertest.Publication(f.queue, seq, largeBody(seq))},
		}.Append(w)
		answers.Add(1)
		err := r.Send(wire.OpPublish, w.Bytes(), func(op wire.Op, payload []byte, err error) {
			defer answers.Done()
			if err == nil && op == wire.OpPublish {
				f.answered(seq, payload)
			}
		})
		if err != nil {
			answers.Done()
		}
	}
	done := make(chan struct{})
	go func() {
		answers.Wait()
		close(done)
	}()
	return done
}

// largeBody makes a thousand publishes several entries of the log.
func largeBody(seq uint64) string { return fmt.Sprintf("body %-2000d", seq) }

func (f *inFlight) answered(seq uint64, payload []byte) {
	p, err := wire.DecodePublishReply(payload)
	if err != nil || len(p.Results) != 1 || p.Results[0].Sequence != seq || p.Results[0].Status != wire.StatusOK {
		f.t.Errorf("sequence %d: %+v, %v", seq, p, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.results[seq]; ok && old.Offset != p.Results[0].Offset {
		f.t.Errorf("sequence %d is at %d and at %d", seq, old.Offset, p.Results[0].Offset)
	}
	f.results[seq] = p.Results[0]
}

func (f *inFlight) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.results)
}

// open are the sequences up to n without an answer, shuffled.
func (f *inFlight) open(n int) (seqs []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for seq := uint64(1); seq <= uint64(n); seq++ {
		if _, ok := f.results[seq]; !ok {
			seqs = append(seqs, seq)
		}
	}
	rand.Shuffle(len(seqs), func(i, j int) { seqs[i], seqs[j] = seqs[j], seqs[i] })
	return seqs
}

func dialThrough(t *testing.T, p *clustertest.Proxy, n *clustertest.Node) *clustertest.Raw {
	t.Helper()
	nc, err := p.Dial(bounded(t), "tcp", n.Address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := clustertest.NewRaw(bounded(t), nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func shuffled(s []uint64) []uint64 {
	s = append([]uint64(nil), s...)
	rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

// TestPublish_ThousandInFlight_ShuffledOverTwoConnections_LeaderKilled: every
// sequence goes out twice, over two connections and in two orders; most answers
// are lost, and the leader dies when the first have come; what has no answer
// goes out again, twice, to the next. Each is stored once.
func TestPublish_ThousandInFlight_ShuffledOverTwoConnections_LeaderKilled(t *testing.T) {
	t.Parallel()
	eachLogStore(t, func(t *testing.T, o clustertest.Option) {
		const n = 1000
		c := clustertest.New(t, 3, o, clustertest.Steady)
		leader, _, s := ready(t, c, "orders")
		f := &inFlight{t: t, session: s, queue: "orders", results: make(map[uint64]wire.PublishResult)}
		var all []uint64
		for seq := uint64(1); seq <= n; seq++ {
			all = append(all, seq)
		}
		proxy := clustertest.NewProxy(t)
		proxy.OnAnswer(func(f wire.Frame) clustertest.Verdict {
			if f.Op == wire.OpPublish && f.Corr%3 != 0 {
				return clustertest.Drop
			}
			return clustertest.Pass
		})
		a, b := dialThrough(t, proxy, leader), dialThrough(t, proxy, leader)
		doneA, doneB := f.send(a, shuffled(all)), f.send(b, shuffled(all))
		clustertest.Eventually(t, func() string {
			if f.count() == 0 {
				return "no answer yet"
			}
			return ""
		})
		c.Kill(leader)
		await(t, "the end of one connection", doneA)
		await(t, "the end of the other", doneB)
		if len(f.open(n)) == 0 {
			t.Fatal("all were answered before the leader died: the test shows nothing")
		}
		t.Logf("%d of %d were answered before the leader died", f.count(), n)
		clustertest.Eventually(t, func() string {
			open := f.open(n)
			if len(open) == 0 {
				return ""
			}
			next := c.WaitOtherLeader(leader)
			a, b := dial(t, next), dial(t, next)
			doneA, doneB := f.send(a, open), f.send(b, shuffled(open))
			<-doneA
			<-doneB
			return fmt.Sprintf("%d without an answer", len(open))
		})
		// What had an answer from the dead leader gets the same one here.
		again := dial(t, c.WaitLeader())
		await(t, "all once more", f.send(again, shuffled(all)))
		k := info(c, "orders").Counts
		if k.Stored != n || k.Ready != n {
			t.Fatalf("stored %d of %d: %+v", k.Stored, n, k)
		}
		got := newReceived()
		stop := consume(t, connect(t, c), "orders", func(_ context.Context, d *client.Delivery) error {
			got.note(d)
			return nil
		})
		got.waitFor(t, n)
		waitSettled(t, c, "orders")
		stop()
		got.onceEach(t, n)
		for seq := uint64(1); seq <= n; seq++ {
			if got.bodies[largeBody(seq)] != 1 {
				t.Errorf("sequence %d was handed out %d times", seq, got.bodies[largeBody(seq)])
			}
		}
		wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Acked == n && k.Delivered == n })
		c.Restart(leader)
		c.WaitCaughtUp()
		c.DigestsAgree()
	})
}
