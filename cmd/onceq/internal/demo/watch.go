package demo

import (
	"context"
	"fmt"
	"time"

	"onceq/cmd/onceq/internal/console"
)

const (
	stallSample = 100 * time.Millisecond
	drawEvery   = 100 * time.Millisecond
	plainEvery  = 2 * time.Second
)

// watchStalls measures how long this process stood still (stopped, suspended,
// starved): its consumers looked dead in that time, so leases that the cluster
// took from them then are no broken promise.
func (r *run) watchStalls(ctx context.Context) {
	last := time.Now().Round(0) // the wall clock: it goes on while a machine sleeps
	for sleep(ctx, stallSample) == nil {
		now := time.Now().Round(0)
		if d := int64(now.Sub(last) - stallSample); d > r.stalled.Load() {
			r.stalled.Store(d)
		}
		last = now
	}
}

// progress shows how far the run is: on a terminal one line that is drawn over,
// elsewhere a line at times.
func (r *run) progress(ctx context.Context) {
	every := plainEvery
	if r.con.Watched() {
		every = drawEvery
	}
	for sleep(ctx, every) == nil {
		line := fmt.Sprintf("%5.1f s  %s of %s confirmed, %s delivered, %s acked, %s sent again", time.Since(r.began).Seconds(),
			console.Count(r.confirmed.Load()), console.Count(r.cfg.Messages), console.Count(r.delivered.Load()),
			console.Count(r.acked.Load()), console.Count(r.retransmitted.Load()))
		if r.con.Watched() {
			r.con.Progress("%s", line)
		} else {
			r.con.Note("%s", line)
		}
	}
}

// event says what has happened, with its time.
func (r *run) event(format string, args ...any) {
	r.con.Note("%5.1f s  %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}
