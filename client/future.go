package client

import (
	"context"
	"sync"

	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Future is one publish under way: of PublishAsync, one message under one sequence. It
// is kept by its producer until its outcome is final, which may be later than
// the moment the caller is told that it is unknown.
type Future struct {
	p    *Producer
	done chan struct{}                 // closed when the caller has its answer
	told func(sequenced.Stored, error) // called then, with p.mu held; nil unless sequenced

	// Made once, when the publish is handed in, and sent with each copy.
	encoded  []byte // the array of messages
	checksum uint64
	count    int
	room     int // bytes of the producer's that it takes
	order    int // see orderOf

	// All below are guarded by p.mu, until done is closed.
	list       *futures // the list it is in, nil when final
	prev, next *Future
	before     *Future         // the newest earlier one of the same order that is open
	behind     *Future         // the one whose before this is
	ended      <-chan struct{} // of the context it lives under, nil for none
	sequence   uint64          // 0 until its first copy is made

	copies   int   // made and not known to be unsent
	inFlight bool  // in a frame without an answer
	unknown  bool  // a copy may have arrived and has no definite answer
	written  bool  // a byte of a copy may have left this process
	alone    bool  // to be sent in a frame of its own
	sealing  bool  // not retransmitted any more: waits for its seal
	refusal  error // what a copy was refused with, to report if the seal finds nothing stored
	reported bool  // done is closed

	receipt Receipt // of the first message
	err     error
}

// Done is closed when the outcome is there.
func (f *Future) Done() <-chan struct{} { return f.done }

// Wait waits for the outcome. When ctx ends first the publish goes on: the error is
// ErrOutcomeUnknown and what ended ctx, and Wait may be called again.
func (f *Future) Wait(ctx context.Context) (Receipt, error) {
	select {
	case <-f.done:
		return f.receipt, f.err
	default:
	}
	select {
	case <-f.done:
		return f.receipt, f.err
	case <-ctx.Done():
		return Receipt{}, newError(wire.CodeOutcomeUnknown, "the publish has no outcome yet and goes on: wait again").because(causeOf(ctx))
	}
}

// receipts are the places of all messages of a batch.
func (f *Future) receipts() []Receipt {
	rs := make([]Receipt, f.count)
	for i := range rs {
		rs[i] = f.receipt
		rs[i].Message.Offset += uint64(i)
	}
	return rs
}

// definite says that every copy ever made has an answer that it was not stored.
func (f *Future) definite() bool { return !f.inFlight && !f.unknown }

func (f *Future) report(r Receipt, err error) {
	if f.reported {
		return
	}
	f.reported = true
	f.receipt, f.err = r, err
	close(f.done)
	if f.told != nil {
		at := r.Message
		f.told(sequenced.Stored{Queue: at.QueueNumber, Lane: at.Lane, Offset: at.Offset, Duplicate: r.Duplicate, Attempts: r.Attempts}, err)
	}
}

// publishOverhead is at least what a publish costs in a frame beside its encoded
// messages: an array and three integers.
const publishOverhead = 1 + 3*9

func (f *Future) size() int { return len(f.encoded) + publishOverhead }

// append writes the copy of now: only after depends on when it is sent.
func (f *Future) append(w *pack.Writer, after uint64) {
	w.Array(4)
	w.Uint(f.sequence)
	w.Uint(after)
	w.Uint(f.checksum)
	w.Raw(f.encoded)
}

var encoders = sync.Pool{New: func() any { return new(pack.Writer) }}

// encode writes the messages once; the caller's bytes are free after it.
func encode(ms []wire.Message) []byte {
	w := encoders.Get().(*pack.Writer)
	w.Reset()
	w.Array(len(ms))
	for i := range ms {
		ms[i].Append(w)
	}
	b := append(make([]byte, 0, w.Len()), w.Bytes()...)
	if w.Len() <= keepBufferBytes {
		encoders.Put(w)
	}
	return b
}

// futures is a list of publishes in the order they were handed in.
type futures struct {
	head, tail *Future
	n          int
	bytes      int
}

func (l *futures) pushBack(f *Future) {
	f.list, f.prev, f.next = l, l.tail, nil
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
	l.n++
	l.bytes += f.size()
}

func (l *futures) pushFront(f *Future) {
	f.list, f.prev, f.next = l, nil, l.head
	if l.head == nil {
		l.tail = f
	} else {
		l.head.prev = f
	}
	l.head = f
	l.n++
	l.bytes += f.size()
}

func (l *futures) remove(f *Future) {
	if f.prev == nil {
		l.head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.tail = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.list, f.prev, f.next = nil, nil, nil
	l.n--
	l.bytes -= f.size()
}
