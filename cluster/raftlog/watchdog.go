package raftlog

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrHung is wrapped by the error for a write that does not end. The process ends over it, because raft does not notice: a leader
// whose disk hangs keeps its heartbeats and its office, and nobody else can lead.
var ErrHung = errors.New("does not finish")

// samplePeriod is how often the watchdog looks.
const samplePeriod = 100 * time.Millisecond

// slowestBytes is what a disk writes a second at least: so much longer may a write take than one of nothing. A disk that is slow, but
// works, would end the process in the middle of what the next start has to write as well.
const slowestBytes = 1 << 20

// watchdog counts how often it has seen the same operation under way. It counts its own looks, not elapsed time: after SIGSTOP, a
// suspend, or a machine without CPU time for anybody, it has looked as seldom as the operation has run, and nothing is wrong.
type watchdog struct {
	limit int
	hung  func(error)
	quit  chan struct{}
	ended chan struct{}

	mu      sync.Mutex // guards below
	running []*operation
}

type operation struct {
	name    string
	limit   int
	samples int
}

func startWatchdog(limit time.Duration, hung func(error)) *watchdog {
	w := &watchdog{
		limit: max(1, int(limit/samplePeriod)),
		hung:  hung,
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	go w.run()
	return w
}

// begin notes an operation that writes so many bytes; the function that it returns ends it.
func (w *watchdog) begin(name string, bytes int) (done func()) {
	op := &operation{name: name, limit: w.limit + int(time.Duration(bytes)*time.Second/slowestBytes/samplePeriod)}
	w.mu.Lock()
	w.running = append(w.running, op)
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, o := range w.running {
			if o == op {
				w.running = append(w.running[:i], w.running[i+1:]...)
				return
			}
		}
	}
}

func (w *watchdog) run() {
	defer close(w.ended)
	tick := time.NewTicker(samplePeriod)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-tick.C:
			if err := w.sample(); err != nil {
				w.hung(err)
			}
		}
	}
}

// sample looks once. An operation is reported at the look that reaches the limit, once.
func (w *watchdog) sample() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, op := range w.running {
		op.samples++
		if op.samples == op.limit {
			return fmt.Errorf("raft log: %s %w after %d looks of %v", op.name, ErrHung, op.samples, samplePeriod)
		}
	}
	return nil
}

func (w *watchdog) stop() {
	close(w.quit)
	<-w.ended
}
