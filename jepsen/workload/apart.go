package workload

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
)

// clientJob is what the process of a client is to do: to produce at a rate, or to
// consume.
type clientJob struct {
	Name, Run, Queue, URL string
	Via                   map[string]string // where to dial for the address of a node
	Seed                  uint64
	Began                 time.Duration // when the run did, by the clock of the machine
	Lease                 time.Duration
	Rate                  float64
	Patient               int
	Consumes              bool
	AtOnce                int // handlers
	Burst                 int // publishes, see producer
}

// What a client's process is told, a line each. When there are no more lines it ends
// in order.
const (
	tellDraining  = "draining"  // nothing is waited for any more
	tellOvertaken = "overtaken" // and an id and an attempt: others have a newer one
)

// noteLine is an event that is for World.Report: Text.
const noteLine = "note"

// runClient runs a client with the workload's own producers and consumers; its
// history is what it says.
func runClient(job clientJob) error {
	began, err := startOfRun(job.Began)
	if err != nil {
		return err
	}
	h := history.NewWriterSince(os.Stdout, began)
	w := &World{
		H: h, Run: job.Run, URL: job.URL, Seed: job.Seed, Draining: make(chan struct{}),
		Dial: func(string) raw.Dialer { return dialVia(job.Via) },
		Report: func(format string, args ...any) {
			h.Add(history.Event{F: noteLine, Type: history.Info, Of: -1, Text: fmt.Sprintf(format, args...)})
		},
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	taken := newOvertakings()
	go func() {
		defer end()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			switch what, of, _ := strings.Cut(lines.Text(), " "); what {
			case tellDraining:
				close(w.Draining) // it is told once
			case tellOvertaken:
				taken.tell(of)
			}
		}
	}()
	c := w.connect(ctx, job.Name)
	if c == nil {
		return nil
	}
	defer c.Close()
	if job.Consumes {
		s := &worker{w: w, queue: job.Queue, lease: job.Lease, name: job.Name, atOnce: job.AtOnce, taken: taken}
		s.run(ctx, c)
		return nil
	}
	p := &producer{w: w, queue: job.Queue, rate: job.Rate, burst: job.Burst, pipelined: true, stays: true, patient: job.Patient}
	p.live(ctx, c, job.Name, w.rng(job.Name))
	return nil
}

// monotonic is the clock that all processes of the machine share.
func monotonic() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// clockTries: two clocks are read one after the other, and the process may be
// interrupted between; the best of so many tries counts.
const clockTries = 10

// ahead is by how much the clock of the machine is ahead of another.
func ahead(of func() time.Duration) (by time.Duration, err error) {
	least := time.Duration(math.MaxInt64)
	for range clockTries {
		before := of()
		now, err := monotonic()
		if err != nil {
			return 0, err
		}
		if took := of() - before; took < least {
			least, by = took, now-before
		}
	}
	return by, nil
}

// startOfRun is the moment at which the clock of the machine was at began.
func startOfRun(began time.Duration) (time.Time, error) {
	zero := time.Now()
	by, err := ahead(func() time.Duration { return time.Since(zero) })
	return zero.Add(began - by), err
}
