package outbox

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// room is how much of the file's limits is taken. Who waits for some gets it in the
// order of waiting.
type room struct {
	entriesMax, bytesMax int

	mu             sync.Mutex // guards what follows
	entries, bytes int
	waiting        list.List // of *wanted
}

type wanted struct {
	bytes int
	got   chan struct{}
}

func (r *room) fits(bytes int) bool {
	return r.entries < r.entriesMax && r.bytes+bytes <= r.bytesMax
}

// take takes room for one entry. It waits for it until ctx ends, unless fail.
func (r *room) take(ctx context.Context, bytes int, fail bool) error {
	r.mu.Lock()
	if r.waiting.Len() == 0 && r.fits(bytes) {
		r.entries++
		r.bytes += bytes
		r.mu.Unlock()
		return nil
	}
	if fail {
		defer r.mu.Unlock()
		return fmt.Errorf("%w: %d of %d entries, %d of %d bytes: wait until some are stored", ErrFull, r.entries, r.entriesMax, r.bytes, r.bytesMax)
	}
	w := &wanted{bytes, make(chan struct{})}
	at := r.waiting.PushBack(w)
	r.mu.Unlock()
	select {
	case <-w.got:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-w.got: // meanwhile
		return nil
	default:
	}
	r.waiting.Remove(at)
	r.serve()
	return fmt.Errorf("%w: %w", ErrFull, context.Cause(ctx))
}

func (r *room) give(entries, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries -= entries
	r.bytes -= bytes
	r.serve()
}

func (r *room) serve() {
	for at := r.waiting.Front(); at != nil; at = r.waiting.Front() {
		w := at.Value.(*wanted)
		if !r.fits(w.bytes) {
			return
		}
		r.entries++
		r.bytes += w.bytes
		r.waiting.Remove(at)
		close(w.got)
	}
}
