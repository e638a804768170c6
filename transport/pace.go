package transport

import (
	"sync/atomic"
	"time"
)

// pace is how far ahead of frameRate a peer is with the frame that it sends: it has time
// until due, each byte gives it more, and frameGrace is the most that it can save. So
// who has sent much at once and then next to nothing is slow soon after, and who keeps to
// the rate never is, however long its frame takes.
type pace struct {
	start time.Time
	due   atomic.Int64 // nanoseconds after start; only the reader of the connection stores it
}

// begins is called when a frame does.
func (p *pace) begins() {
	p.due.Store(int64(time.Since(p.start) + frameGrace))
}

// moves is called when n bytes have come.
func (p *pace) moves(n int) {
	earned := time.Duration(n) * time.Second / frameRate
	p.due.Store(min(p.due.Load()+int64(earned), int64(time.Since(p.start)+frameGrace)))
}

// by is when the peer is slow if nothing comes.
func (p *pace) by() time.Time { return p.start.Add(time.Duration(p.due.Load())) }
