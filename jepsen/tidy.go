package jepsen

import (
	"context"
	"sync"
	"time"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
	"onceq/jepsen/proc"
)

const (
	// tidyMost bounds how long what is done with may stay, but for when the harness stood
	// still. It is a little more than what a checker waits for.
	tidyMost  = 61 * time.Second
	tidyEvery = 200 * time.Millisecond
	// tidyEntries come between two looks. Each counts a KiB, and a node takes a snapshot
	// when an eighth of its log is new.
	tidyEntries = 64
	tidyAtOnce  = 8 // or a slow disk takes the minute for them
)

// limits are what disk and memory are judged by, nil when the nodes were told more than
// this package knows of.
func (r *run) limits() *history.Limits {
	if len(r.cfg.ServerArgs) > 0 {
		return nil
	}
	return &history.Limits{Log: logBytes, Bodies: uint64(r.plan.memory()), Memory: !proc.Raced(r.cfg.Binary)}
}

// tidy waits until each node has no more than it may have with empty queues. What was
// freed leaves the disk behind a snapshot, and a snapshot is taken of something new only,
// so it has digests put into the log meanwhile.
func (r *run) tidy(ctx context.Context) {
	l := r.setup.Limits
	if l == nil || !r.drained {
		return
	}
	op := r.h.Invoke(history.Event{Proc: "monitor", F: history.Tidy})
	late := r.monitor.late(tidyMost)
	left := r.names
	next := time.NewTicker(tidyEvery)
	defer next.Stop()
	for ; ; <-next.C {
		var over []string
		for _, n := range left {
			b, ok := r.monitor.sizes(n)
			if ok && check.Over(*l, b) == "" {
				continue
			}
			over = append(over, n)
			op.Err = n + " cannot be measured"
			if ok {
				op.Err = n + ": " + check.Over(*l, b)
			}
		}
		if left = over; len(left) == 0 {
			op.Err = ""
			r.h.Complete(op, history.OK)
			return
		}
		if late() {
			r.h.Complete(op, history.Fail)
			return
		}
		var asked sync.WaitGroup
		for range tidyAtOnce {
			asked.Go(func() {
				for n := 0; n < tidyEntries/tidyAtOnce && !late(); n++ {
					r.monitor.digest(ctx)
				}
			})
		}
		asked.Wait()
	}
}
