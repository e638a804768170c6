package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	outboxes      = 2
	outboxLifeMin = 700 * time.Millisecond
	outboxLifeMax = 4 * time.Second
	// outboxAskedMax bounds what a process is asked for and has not kept.
	outboxAskedMax = 64
	// outboxFlush is how long the last process of an outbox has for what is left.
	outboxFlush = 60 * time.Second
)

// outbox is about producers that are killed: what their outbox has kept is stored,
// once and in order, however often its process dies.
func outbox() Workload {
	return Workload{
		Name:   "outbox",
		Apart:  true,
		What:   "producers with an outbox, in processes of their own that are killed every few seconds and go on with the same file",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			s.ProducerOrder = true
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range outboxes {
				p := &boxed{w: w, queue: "jepsen", rate: float64(w.Rate) / outboxes, asked: map[string]history.Event{}, kept: map[string]bool{}}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("b%d", i+1)) })
			}
			for i := range 2 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, nacks: 1, slow: 2, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			return t
		},
	}
}

// boxed is a producer with an outbox. It asks a process of its own to publish, and
// kills that process.
type boxed struct {
	w     *World
	queue string
	rate  float64
	name  string
	n     int // ids so far
	life  int

	// Owned by run; a life's reader is at its end before the next life begins.
	asked map[string]history.Event // without an outcome
	kept  map[string]bool          // of those, which are in the outbox
}

// run publishes until ctx ends, and then lets the outbox send what it still has.
func (p *boxed) run(ctx context.Context, name string) {
	p.name = name
	r := p.w.rng(name)
	dir, err := os.MkdirTemp("", "onceq-outbox-")
	if err != nil {
		p.w.Report("%s: %v", name, err)
		return
	}
	defer os.RemoveAll(dir)
	relay, err := newRelay(p.w, name)
	if err != nil {
		p.w.Report("%s: %v", name, err)
		return
	}
	defer relay.close()
	job := boxJob{File: filepath.Join(dir, "outbox"), Queue: p.queue, URL: p.w.URL, Name: p.w.Run + "-" + name, Label: name, Via: relay.via()}
	for ctx.Err() == nil {
		p.live(ctx, job, between(r, outboxLifeMin, outboxLifeMax), r)
	}
	p.last(job)
	for id, op := range p.asked {
		op.Err = "its process died before it could tell"
		if !p.kept[id] {
			op.Err = "its process died, and it may never have been kept"
		}
		p.w.Count.Unknown.Add(1)
		p.w.H.Complete(op, history.Info)
	}
}

// live is one process, which is asked for publishes at a fixed rate and killed.
func (p *boxed) live(ctx context.Context, job boxJob, life time.Duration, r *rand.Rand) {
	p.life++
	box, err := startBox(job)
	if err != nil {
		p.w.Report("%s: %v", p.name, err)
		pause(ctx, time.Second)
		return
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / p.rate))
	defer tick.Stop()
	over := time.NewTimer(life)
	defer over.Stop()
	asked := 0 // and not kept
	for {
		select {
		case s, ok := <-box.said:
			if !ok {
				p.w.Report("%s: its process ended by itself: %s", p.name, box.end())
				pause(ctx, time.Second)
				return
			}
			if p.hear(s) {
				asked--
			}
		case <-tick.C:
			if asked >= outboxAskedMax {
				continue
			}
			asked++
			id := p.w.id(p.name, p.n)
			p.n++
			p.asked[id] = p.w.H.Invoke(history.Event{Proc: p.name, Client: fmt.Sprintf("%s.%d", p.name, p.life), F: history.Publish, Key: p.queue, ID: id, Carried: carriedBy(content(id))})
			box.tell(id) // it never blocks: what is asked for at once is bounded
		case <-over.C:
			p.end(box)
			return
		case <-ctx.Done():
			p.end(box)
			return
		}
	}
}

// end kills the process, and hears what it has said before.
func (p *boxed) end(box *box) {
	box.kill()
	for s := range box.said {
		p.hear(s)
	}
	box.end()
}

// last is a process that publishes nothing and ends when the outbox is empty.
func (p *boxed) last(job boxJob) {
	p.life++
	job.Flush = outboxFlush
	box, err := startBox(job)
	if err != nil {
		p.w.Report("%s: %v", p.name, err)
		return
	}
	box.noMore()
	for s := range box.said {
		p.hear(s)
	}
	if how := box.end(); how != "" {
		p.w.Report("%s: its outbox was not emptied: %s", p.name, how)
	}
}

// hear writes what a process has said into the history. It reports whether a
// message was kept.
func (p *boxed) hear(s saying) (kept bool) {
	now := p.w.H.Now()
	if s.Kept {
		p.kept[s.ID] = true
		p.w.H.Add(history.Event{Proc: p.name, F: history.Kept, Type: history.OK, T0: now, T1: now, Of: -1, Key: p.queue, ID: s.ID})
		return true
	}
	op, ok := p.asked[s.ID]
	if !ok {
		p.w.Report("%s: a result of %q, which has one or was never asked for", p.name, s.ID)
		return false
	}
	delete(p.asked, s.ID)
	op.Inner = s.Inner
	if s.Held != "" {
		op.Text, op.Err = history.HeldBack, s.Held
		p.w.H.Complete(op, history.Info)
		return false
	}
	op.Seq, op.Lane, op.Dup, op.Copies = s.Offset, s.Lane, s.Duplicate, s.Attempts
	if op.Client != fmt.Sprintf("%s.%d", p.name, p.life) {
		op.Copies++ // its process may have sent one before it was killed
	}
	p.w.Count.Published.Add(1)
	p.w.H.Complete(op, history.OK)
	return false
}
