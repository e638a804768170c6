package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

// Outbox keeps publishes on this machine's disk until the cluster has stored them.
// It is safe for concurrent use.
//
// Long-lived goroutines: the keeper, which alone writes the file; the sender, which
// opens sessions; the teller, which calls the program's results.
type Outbox struct {
	o       options
	queue   string
	file    *File
	room    room
	bodyMax atomic.Int64

	puts    chan *put // unbuffered: what is taken from it is written
	orders  chan *order
	wake    chan struct{}
	quit    chan struct{} // closed by Close, for the keeper
	stopped chan struct{} // closed when the keeper takes no more puts or orders
	line    *line         // what is sent; the keeper's, nil while there is no session
	failed  error         // of the disk; the keeper's. Nothing is written after it
	results *results

	// halt ends when nothing is taken any more; its cause says why. Not a caller's.
	halt     context.Context
	haltWith context.CancelCauseFunc

	ctx    context.Context // of the sender; ends with Close
	cancel context.CancelFunc
	sender sync.WaitGroup
	keeper sync.WaitGroup
	close  sync.Once
	closed error // of Close

	mu    sync.Mutex // guards what follows
	news  news       // for the keeper
	stats Stats
}

// put is a publish on its way into the file.
type put struct {
	record record
	number Number
	err    error
	done   chan struct{}
}

// order is a decision on its way.
type order struct {
	decision
	err  error
	done chan struct{}
}

// Open opens the outbox in the file at path, which is made if there is none, and
// begins to send what is in it to queue. It does not wait for a cluster.
//
// The error is ErrInUse, ErrForeign, ErrCorrupt, ErrMismatch or what the file system
// said.
func Open(path, queue string, opts ...Option) (*Outbox, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	if !wire.ValidQueueName(queue) {
		return nil, fmt.Errorf("outbox: queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", queue, wire.QueueNameBytesMax)
	}
	f, err := openOrCreate(path, queue, o.name)
	if err != nil {
		return nil, err
	}
	b := &Outbox{
		o: o, queue: queue, file: f,
		room: room{entriesMax: o.entriesMax, bytesMax: o.bytesMax, entries: f.count.entries(), bytes: f.count.bytes},
		puts: make(chan *put), orders: make(chan *order), wake: make(chan struct{}, 1), quit: make(chan struct{}), stopped: make(chan struct{}),
		stats: Stats{Waiting: f.count.waiting, Sent: f.count.sent, Held: f.count.held, Bytes: f.count.bytes},
	}
	b.bodyMax.Store(bodyMaxDefault)
	if o.client != nil {
		b.bodyMax.Store(int64(sequenced.BodyBytesMax(o.client)))
	}
	b.results = newResults(o.results, b.kick)
	b.halt, b.haltWith = context.WithCancelCause(context.Background())
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if f.count.held > 0 {
		o.logger.Warn("entries are held: resend or discard them", "outbox", path, "held", f.count.held)
	}
	b.keeper.Go(b.keep)
	b.sender.Go(b.send)
	return b, nil
}

// Publish takes m and returns when it is on disk: from then on it will be stored
// once, whatever crashes. The number names it for Wait and Entry.
//
// When the outbox is full Publish waits until ctx ends (the error is ErrFull and
// ctx's cause), or fails at once, see WithFailWhenFull. Once it has room it does not
// look at ctx any more, since the disk answers soon. After ErrDisk m may be in the
// file or not; after any other error it is not.
//
// A delay or a time to live counts from when the cluster has stored m.
func (b *Outbox) Publish(ctx context.Context, m client.Message) (Number, error) {
	return b.PublishBatch(ctx, m)
}

// PublishBatch is Publish for several messages that are stored all or none, in one
// step, and are one entry.
func (b *Outbox) PublishBatch(ctx context.Context, ms ...client.Message) (Number, error) {
	m, err := sequenced.Encode(b.queue, ms, int(b.bodyMax.Load()))
	if err != nil {
		return 0, err
	}
	p := &put{record: record{taken: time.Now(), publish: m}, done: make(chan struct{})}
	size := p.record.size()
	if size > b.o.bytesMax {
		return 0, fmt.Errorf("%w: an entry of %d bytes, the outbox has room for %d in all", ErrFull, size, b.o.bytesMax)
	}
	if err := b.Err(); err != nil {
		return 0, err
	}
	if err := b.take(ctx, size); err != nil {
		return 0, err
	}
	select {
	case b.puts <- p:
		<-p.done
	case <-b.stopped:
		p.err = b.Err()
	}
	if p.err != nil {
		b.room.give(1, size)
		return 0, p.err
	}
	b.step("published")
	return p.number, nil
}

// take waits for room, until ctx ends or nothing is taken any more.
func (b *Outbox) take(ctx context.Context, size int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.halt, func() { cancel(b.Err()) })()
	err := b.room.take(ctx, size, b.o.fail)
	if halted := b.Err(); halted != nil && err != nil {
		return halted
	}
	return err
}

// Err is why the outbox takes nothing more: fenced (client.ErrFenced), closed, or
// a disk that failed (ErrDisk). It is nil while all is well.
func (b *Outbox) Err() error { return context.Cause(b.halt) }

func (b *Outbox) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *Outbox) step(name string) {
	if b.o.step != nil {
		b.o.step(name)
	}
}

// Entry returns one entry. The error is ErrNoEntry when it has left.
func (b *Outbox) Entry(n Number) (e Entry, err error) { return b.file.Entry(n) }

// List returns the entries from a number on, at most limit, in the order in which
// they were taken.
func (b *Outbox) List(from Number, limit int) ([]Entry, error) { return b.file.List(from, limit) }

// Held is List for what is held.
func (b *Outbox) Held(from Number, limit int) ([]Entry, error) { return b.file.Held(from, limit) }

// Resend is File.Resend.
func (b *Outbox) Resend(risk Risk, entries ...Number) error {
	return b.order(context.Background(), decision{resend: true, risk: risk, entries: entries})
}

// Discard is File.Discard.
func (b *Outbox) Discard(risk Risk, entries ...Number) error {
	return b.order(context.Background(), decision{risk: risk, entries: entries})
}

// order has the keeper do something. What was on disk before is told when it returns.
// An end of ctx ends the waiting only.
func (b *Outbox) order(ctx context.Context, d decision) error {
	o := &order{decision: d, done: make(chan struct{})}
	select {
	case b.orders <- o:
	case <-b.stopped:
		return b.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Wait waits for the outcome of an entry: nil and where it is stored, or *HeldError,
// or ErrDiscarded. The results of the newest resultsMax entries are remembered by
// the process; for one that left the file earlier, or before a restart, the error is
// ErrLeft.
func (b *Outbox) Wait(ctx context.Context, n Number) (client.Receipt, error) {
	w, r, ok := b.results.wait(n)
	if ok {
		return r.Receipt, r.Err
	}
	defer b.results.forget(n, w)
	// From here on no result is missed; what came before is seen in the file.
	var held *HeldError
	there := false
	err := b.file.view(func(c *contents) (err error) {
		there = c.entries.Get(key(n)) != nil
		if !there && (n == 0 || n > Number(c.entries.Sequence())) {
			return fmt.Errorf("%w: %d", ErrNoEntry, n)
		}
		held, err = c.asHeld(n)
		return err
	})
	switch {
	case err != nil:
		return client.Receipt{}, err
	case held != nil:
		return client.Receipt{}, held
	case !there:
		// The file may be a moment ahead of what is told.
		_ = b.order(ctx, decision{})
		select {
		case r := <-w:
			return r.Receipt, r.Err
		default:
		}
		if ctx.Err() != nil {
			return client.Receipt{}, context.Cause(ctx)
		}
		return client.Receipt{}, ErrLeft
	}
	select {
	case r := <-w:
		return r.Receipt, r.Err
	case <-b.halt.Done():
		select {
		case r := <-w:
			return r.Receipt, r.Err
		default:
			return client.Receipt{}, b.Err()
		}
	case <-ctx.Done():
		return client.Receipt{}, context.Cause(ctx)
	}
}

// Flush waits until every entry that was taken before is stored, held or
// discarded. The error is ctx's cause, or Err.
func (b *Outbox) Flush(ctx context.Context) error {
	last, err := b.file.newest()
	for err == nil {
		var n Number
		if n, err = b.file.oldestOpen(); err != nil {
			return err
		}
		if n == 0 || n > last {
			return b.order(ctx, decision{}) // the file may be a moment ahead of what is told
		}
		_, err = b.Wait(ctx, n)
		if held := (*HeldError)(nil); errors.As(err, &held) || errors.Is(err, ErrDiscarded) || errors.Is(err, ErrLeft) {
			err = nil
		}
	}
	return err
}

// Stats returns what is in the outbox and what has become of the rest.
func (b *Outbox) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

// Close ends the sending and lets go of the file. What has no outcome is sent again
// by whoever opens the file next.
func (b *Outbox) Close() error {
	b.close.Do(func() {
		b.haltWith(ErrClosed)
		b.cancel()
		b.sender.Wait()
		close(b.quit)
		b.keeper.Wait()
		b.results.close()
		b.closed = b.file.Close()
	})
	return b.closed
}
