package client

import (
	"context"
	"sync"
)

// room is what a producer may hold of publishes without a final outcome, in number
// and bytes. Who finds none waits in line: a large publish is not overtaken for
// ever by small ones.
type room struct {
	messagesMax, bytesMax int

	mu              sync.Mutex // guards what follows; a leaf
	messages, bytes int
	line            []*waiting
}

// waiting is who waits for room.
type waiting struct {
	bytes int
	given chan struct{} // closed when the room is its own
}

// fits says whether there is room for one more. What is larger than all of it fits
// where nothing else is.
func (r *room) fits(bytes int) bool {
	return r.messages == 0 || r.messages < r.messagesMax && r.bytes+bytes <= r.bytesMax
}

// try takes room if there is some and nobody waits.
func (r *room) try(bytes int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.line) > 0 || !r.fits(bytes) {
		return false
	}
	r.messages++
	r.bytes += bytes
	return true
}

// take waits for room until ctx ends or ended is closed; false without it.
func (r *room) take(ctx context.Context, bytes int, ended <-chan struct{}) bool {
	w := &waiting{bytes, make(chan struct{})}
	r.mu.Lock()
	r.line = append(r.line, w)
	r.admit()
	r.mu.Unlock()
	select {
	case <-w.given:
		return true
	case <-ctx.Done():
	case <-ended:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, x := range r.line {
		if x == w {
			r.line = append(r.line[:i], r.line[i+1:]...)
			r.admit() // the next may fit where this one did not
			return false
		}
	}
	return true // it was given meanwhile
}

// force takes room for who must not wait, because it was counted elsewhere.
func (r *room) force(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages++
	r.bytes += bytes
}

// give returns room.
func (r *room) give(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages--
	r.bytes -= bytes
	r.admit()
}

// admit lets in who waits, in order, as far as there is room.
func (r *room) admit() {
	for len(r.line) > 0 && r.fits(r.line[0].bytes) {
		w := r.line[0]
		r.line[0] = nil
		r.line = r.line[1:]
		r.messages++
		r.bytes += w.bytes
		close(w.given)
	}
}
