package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The front of each body: when the message was due, and which one it is.
const headBytes = 16

// noise is random bytes from a fixed seed: nothing on the way can compress them,
// and each system gets the same.
var noise = func() []byte {
	b := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// newBody makes the body of message n of a producer.
func newBody(size, producer, n int, due time.Duration) []byte {
	b := make([]byte, size)
	copy(b, noise[(producer*7919+n*1031)%(len(noise)-size):])
	binary.LittleEndian.PutUint64(b, uint64(due))
	binary.LittleEndian.PutUint64(b[8:], uint64(producer)<<40|uint64(n))
	return b
}

func dueOf(body []byte) time.Duration  { return time.Duration(binary.LittleEndian.Uint64(body)) }
func numberOf(body []byte) (id uint64) { return binary.LittleEndian.Uint64(body[8:]) }

// latencies are microseconds up to ten minutes, to three digits.
func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	h.RecordValue(min(max(d.Microseconds(), 1), int64(10*time.Minute/time.Microsecond)))
}

// bench is one workload on one queue of one cluster.
type bench struct {
	work
	sizes
	c       cluster
	queue   string
	began   time.Time // bodies count from here
	measure atomic.Bool

	confirmed, consumed, failed atomic.Int64

	mu           sync.Mutex
	publish, e2e *hdrhistogram.Histogram
	firstErr     error

	from mark // where the measured time begins
}

// mark is a moment, and what had happened until then.
type mark struct {
	at            time.Time
	servers, load usage
	ended         float64
}

// ended is how many messages have come to their end: confirmed, or consumed where
// there are consumers.
func (b *bench) ended() float64 {
	if b.consumers == 0 {
		return float64(b.confirmed.Load())
	}
	return float64(b.consumed.Load())
}

// err is the first error of anybody.
func (b *bench) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.firstErr
}

func (b *bench) begin() {
	b.from = mark{time.Now(), usageOf(b.c.Pids(), b.dir), usageOf([]int{os.Getpid()}, ""), b.ended()}
}

func newBench(c cluster, w work, s sizes, queue string) *bench {
	return &bench{work: w, sizes: s, c: c, queue: queue, began: time.Now(), publish: newLatencies(), e2e: newLatencies()}
}

func (b *bench) fail(err error) {
	if err == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.firstErr == nil {
		b.firstErr = err
	}
}

// produce publishes until ctx ends, or count messages, and keeps up to inFlight
// of them unconfirmed.
func (b *bench) produce(ctx context.Context, i, count int) error {
	p, err := b.c.Producer(ctx, b.queue, b.inFlight)
	if err != nil {
		return err
	}
	defer p.Close()
	type sent struct {
		confirmation
		due time.Duration
	}
	h := newLatencies()
	slots, open := make(chan struct{}, b.inFlight), make(chan sent, b.inFlight)
	confirmed := make(chan struct{})
	go func() {
		defer close(confirmed)
		for s := range open {
			if err := s.Wait(answerBound); err != nil {
				b.failed.Add(1)
				b.fail(fmt.Errorf("publish: %w", err))
			} else {
				if b.measure.Load() {
					record(h, time.Since(b.began)-s.due)
				}
				b.confirmed.Add(1)
			}
			<-slots
		}
	}()
	step, next := time.Duration(0), time.Since(b.began)
	if b.rate > 0 {
		step = time.Duration(float64(b.producers) / b.rate * float64(time.Second))
		next += step * time.Duration(i) / time.Duration(b.producers)
	}
	for n := 0; ctx.Err() == nil && (count == 0 || n < count); n++ {
		due := time.Since(b.began)
		if step > 0 {
			// A message counts from when it was due: what a stall held up must show.
			if due < next {
				time.Sleep(next - due)
			}
			due, next = next, next+step
		}
		slots <- struct{}{}
		if b.rate == 0 {
			due = time.Since(b.began)
		}
		c, err := p.Publish("", newBody(b.size, i, n, due))
		if err != nil {
			b.fail(fmt.Errorf("publish: %w", err))
			<-slots
			break
		}
		open <- sent{c, due}
	}
	close(open)
	<-confirmed
	b.mu.Lock()
	b.publish.Merge(h)
	b.mu.Unlock()
	return nil
}

// answerBound is how long a confirmation may take before the run gives up.
const answerBound = 60 * time.Second

// consume receives and acks until ctx ends.
func (b *bench) consume(ctx context.Context, c consumer) error {
	h := newLatencies()
	err := c.Run(ctx, func(body []byte) {
		if b.measure.Load() {
			record(h, time.Since(b.began)-dueOf(body))
		}
		b.consumed.Add(1)
	})
	b.mu.Lock()
	b.e2e.Merge(h)
	b.mu.Unlock()
	return err
}

// clients runs the producers and consumers of a workload. stop ends the
// producers, waits for what they have open, and then ends the consumers.
func (b *bench) clients(ctx context.Context, producers, consumers, count int) (published <-chan struct{}, stop func(), err error) {
	producing, endProducers := context.WithCancel(ctx)
	consuming, endConsumers := context.WithCancel(ctx)
	var p, c sync.WaitGroup
	var ready []consumer
	for range consumers {
		con, err := b.c.Consumer(ctx, b.queue, b.prefetch)
		if err != nil {
			endProducers()
			endConsumers()
			return nil, nil, err
		}
		ready = append(ready, con)
	}
	// Connecting is not part of what is measured, the first message is.
	b.begin()
	for _, con := range ready {
		c.Go(func() { b.fail(b.consume(consuming, con)) })
	}
	for i := range producers {
		p.Go(func() { b.fail(b.produce(producing, i, count)) })
	}
	done := make(chan struct{})
	go func() { p.Wait(); close(done) }()
	return done, func() { endProducers(); <-done; endConsumers(); c.Wait() }, nil
}

// window measures from the mark on until it is over, or at most for d; but not before
// there is a message in it, or an error: a slow machine is measured by one rather than by
// none.
func (b *bench) window(ctx context.Context, d time.Duration, over func() bool, r *result) {
	f := b.from
	b.measure.Store(true)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	n := b.ended() - f.ended
	for (time.Since(f.at) < d || n == 0 && b.err() == nil && time.Since(f.at) < answerBound) && ctx.Err() == nil && !over() {
		<-tick.C
		n = b.ended() - f.ended
	}
	b.measure.Store(false)
	seconds := time.Since(f.at).Seconds()
	used, mine := usageOf(b.c.Pids(), b.dir).since(f.servers), usageOf([]int{os.Getpid()}, "").since(f.load)
	r.PerSecond, r.Messages = n/seconds, n
	if n > 0 {
		r.ServerCPU, r.LoadCPU, r.Written = used.cpu.Seconds()/n*1000, mine.cpu.Seconds()/n*1000, used.written/n
	}
	r.RSS = used.rss
}

func (b *bench) latencies(r *result) {
	h := b.publish
	if b.consumers > 0 {
		h = b.e2e
	}
	r.P50, r.P99, r.P999 = float64(h.ValueAtQuantile(50))/1e3, float64(h.ValueAtQuantile(99))/1e3, float64(h.ValueAtQuantile(99.9))/1e3
}

// steady is a load that goes on: warm up, then measure.
func (b *bench) steady(ctx context.Context, r *result) error {
	_, stop, err := b.clients(ctx, b.producers, b.consumers, 0)
	if err != nil {
		return err
	}
	never := func() bool { return false }
	warm := time.NewTimer(b.warm)
	select {
	case <-warm.C:
	case <-ctx.Done():
	}
	b.begin()
	b.window(ctx, b.time, never, r)
	stop()
	b.latencies(r)
	return errors.Join(ctx.Err(), b.firstErr)
}

// drain fills a queue that nobody consumes, and then consumes it.
func (b *bench) drain(ctx context.Context, r *result) error {
	published, stop, err := b.clients(ctx, b.producers, 0, b.backlog/b.producers)
	if err != nil {
		return err
	}
	<-published
	stop()
	if b.firstErr != nil {
		return b.firstErr
	}
	_, stop, err = b.clients(ctx, 0, b.consumers, 0)
	if err != nil {
		return err
	}
	b.window(ctx, drainBound, func() bool { return b.consumed.Load() >= b.confirmed.Load() }, r)
	stop()
	if b.consumed.Load() < b.confirmed.Load() && ctx.Err() == nil {
		return fmt.Errorf("%d of %d messages came out within %s", b.consumed.Load(), b.confirmed.Load(), drainBound)
	}
	return errors.Join(ctx.Err(), b.firstErr)
}

// drainBound is how long a drain may take.
const drainBound = 4 * time.Minute
