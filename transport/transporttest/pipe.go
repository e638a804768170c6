package transporttest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferBytes is what one direction of a connection holds before its writer
// blocks.
const bufferBytes = 256 << 10

// pipe is one direction of a connection. Everything in it is guarded by n.mu.
type pipe struct {
	n        *Network
	from, to string
	cond     *sync.Cond
	segments []segment
	size     int
	broken   error // both sides get it at once
	// The reader has closed: what is written goes nowhere.
	unread bool
	// The writer has ended its direction.
	ended bool
	read  deadline
	write deadline
}

// segment is one write, or the end of the stream.
type segment struct {
	data []byte
	end  bool
	at   time.Time // arrives then
	held bool      // the link was cut before it arrived
}

func newPipe(n *Network, from, to string) *pipe {
	p := &pipe{n: n, from: from, to: to}
	p.cond = sync.NewCond(&n.mu)
	p.read.p, p.write.p = p, p
	return p
}

// relink brings the segments under way in line with the link.
func (p *pipe) relink() {
	open := p.n.open(p.from, p.to)
	now := time.Now()
	for i := range p.segments {
		s := &p.segments[i]
		switch {
		case open && s.held:
			s.held = false
			s.at = now.Add(p.n.delay)
			p.wakeAt(s.at)
		case !open && s.at.After(now):
			s.held = true
		}
	}
	p.cond.Broadcast()
}

func (p *pipe) wakeAt(t time.Time) {
	if d := time.Until(t); d > 0 {
		time.AfterFunc(d, p.wake)
	}
}

func (p *pipe) wake() {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	p.cond.Broadcast()
}

func (p *pipe) fail(err error) {
	if p.broken == nil {
		p.broken = err
		p.segments = nil
	}
	p.cond.Broadcast()
}

func (p *pipe) put(s segment) {
	s.at = time.Now().Add(p.n.delay)
	s.held = !p.n.open(p.from, p.to)
	p.segments = append(p.segments, s)
	p.size += len(s.data)
	p.wakeAt(s.at)
	p.cond.Broadcast()
}

// get reads what has arrived. The caller holds n.mu.
func (p *pipe) get(b []byte) (int, error) {
	for {
		switch {
		case p.unread:
			return 0, net.ErrClosed
		case p.read.passed():
			return 0, os.ErrDeadlineExceeded
		case p.broken != nil:
			return 0, p.broken
		case len(p.segments) > 0 && !p.segments[0].held && !p.segments[0].at.After(time.Now()):
			if p.segments[0].end {
				return 0, io.EOF
			}
			if len(b) == 0 {
				return 0, nil
			}
			return p.pull(b), nil
		}
		p.cond.Wait()
	}
}

// pull takes as many arrived segments as fit.
func (p *pipe) pull(b []byte) int {
	now := time.Now()
	n := 0
	for n < len(b) && len(p.segments) > 0 {
		s := &p.segments[0]
		if s.end || s.held || s.at.After(now) {
			break
		}
		k := copy(b[n:], s.data)
		n += k
		s.data = s.data[k:]
		if len(s.data) == 0 {
			p.segments = p.segments[1:]
		}
	}
	p.size -= n
	p.cond.Broadcast()
	return n
}

// send writes b and returns how much of it the buffer took. The caller holds
// n.mu.
func (p *pipe) send(b []byte) (int, error) {
	sent := 0
	for {
		switch {
		case p.ended:
			return sent, net.ErrClosed
		case p.write.passed():
			return sent, os.ErrDeadlineExceeded
		case p.broken != nil:
			return sent, p.broken
		case p.unread && p.n.open(p.to, p.from):
			return sent, syscall.EPIPE
		case sent == len(b):
			return sent, nil
		case p.size < bufferBytes:
			k := min(len(b)-sent, bufferBytes-p.size)
			p.put(segment{data: append([]byte(nil), b[sent:sent+k]...)})
			sent += k
			continue
		}
		p.cond.Wait()
	}
}

// end ends the stream after what was written.
func (p *pipe) end() {
	if !p.ended {
		p.ended = true
		p.put(segment{end: true})
	}
}

// deadline is a point in time at which waiting ends. It is guarded by n.mu.
type deadline struct {
	p     *pipe
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, d.p.wake)
	}
	d.p.cond.Broadcast()
}
