package proxy

import (
	"bufio"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"onceq/transport/wire"
)

const (
	// queueFrames bounds the frames that wait in one direction. With it full the
	// sender is slowed down as by a full socket.
	queueFrames = 256
	// requestsMax bounds the requests whose op is remembered for the reply.
	requestsMax = 1 << 17
)

// link is one connection of a client to a node.
type link struct {
	Link
	n     *Net
	sides [directions]net.Conn // where a direction is written to
	ended chan struct{}
	once  sync.Once
	parts sync.WaitGroup // the four goroutines

	clientGone atomic.Bool

	mu       sync.Mutex // guards what follows
	requests map[uint32]wire.Op
}

// parcel is a frame on its way.
type parcel struct {
	frame wire.Frame
	due   time.Time
}

func (n *Net) join(client, node string, near, server net.Conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errClosed
	}
	n.number++
	l := &link{
		Link:  Link{n.number, client, node},
		n:     n,
		sides: [directions]net.Conn{ToServer: server, ToClient: near},
		ended: make(chan struct{}), requests: map[uint32]wire.Op{},
	}
	n.links[l] = true
	n.running.Add(1)
	l.parts.Add(2 * int(directions))
	for d := range directions {
		queue := make(chan parcel, queueFrames)
		go l.read(d, queue)
		go l.write(d, queue)
	}
	go func() {
		defer n.running.Done()
		l.parts.Wait()
		if n.tap != nil {
			n.tap.Closed(l.Link)
		}
		n.mu.Lock()
		delete(n.links, l)
		n.mu.Unlock()
	}()
	return nil
}

// end closes both sides, with a reset when asked to.
func (l *link) end(reset bool) {
	l.once.Do(func() {
		close(l.ended)
		for _, c := range l.sides {
			if t, ok := c.(*net.TCPConn); ok && reset {
				_ = t.SetLinger(0)
			}
			_ = c.Close()
		}
	})
}

// read takes frames from the side that d comes from. The magic before a client's
// first frame is passed on by write.
func (l *link) read(d Direction, queue chan<- parcel) {
	defer l.parts.Done()
	defer close(queue)
	from := bufio.NewReaderSize(l.sides[1-d], 64<<10)
	if d == ToServer {
		var magic [len(wire.Magic)]byte
		if _, err := io.ReadFull(from, magic[:]); err != nil || string(magic[:]) != wire.Magic {
			l.end(false)
			return
		}
	}
	frames := wire.NewFrameReader(from, wire.FrameBytesMax)
	for {
		f, err := frames.Next()
		if err != nil {
			return // write passes on what came before, then ends
		}
		if d == ToServer && !f.Reply {
			if code, yes := l.n.refuses(l.Link, f.Op); yes {
				l.refuse(f, code)
				continue
			}
		}
		if !l.passes(d, f) {
			l.end(true)
			return
		}
		select {
		case queue <- parcel{f, l.n.due(l.Node)}:
		case <-l.ended:
			return
		}
	}
}

// passes is false for a reply that is to be lost.
func (l *link) passes(d Direction, f wire.Frame) bool {
	if d == ToServer {
		if !f.Reply {
			l.n.asked[f.Op].Add(1)
			l.mu.Lock()
			if len(l.requests) < requestsMax {
				l.requests[f.Corr] = f.Op
			}
			l.mu.Unlock()
		}
		return true
	}
	if !f.Reply {
		return true
	}
	l.mu.Lock()
	op, ok := l.requests[f.Corr]
	delete(l.requests, f.Corr)
	l.mu.Unlock()
	return !ok || !l.n.loses(l.Link, op)
}

// write passes frames on when they are due and nothing holds them.
//
// When the client is gone, what it sent before is still on its way and reaches
// the node, late if it is held: a copy that nobody waits for any more is what
// dedup is about. So a failed write to the client does not end the link; the
// other direction does when it has passed on all there is.
func (l *link) write(d Direction, queue <-chan parcel) {
	defer l.parts.Done()
	defer func() {
		if d == ToServer {
			l.lingers()
		}
		if d == ToServer || !l.clientGone.Load() {
			l.end(false)
		}
	}()
	to := l.sides[d]
	if d == ToServer {
		if _, err := to.Write([]byte(wire.Magic)); err != nil {
			return
		}
	}
	var out []byte
	for p := range queue {
		if !l.wait(d, p.due) {
			return
		}
		if l.n.tap != nil {
			l.n.tap.Frame(l.Link, d, p.frame)
		}
		out = wire.AppendFrame(out[:0], p.frame.Op, p.frame.Reply, p.frame.Corr, p.frame.Payload)
		l.garble(out)
		if _, err := to.Write(out); err != nil {
			if d == ToServer {
				return
			}
			l.clientGone.Store(true)
			for range queue { // nobody hears it
			}
			return
		}
	}
}

// wait returns when a frame may pass; false when the link has ended.
func (l *link) wait(d Direction, due time.Time) bool {
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.ended:
			return false
		}
	}
	for first := true; ; first = false {
		held, changed := l.n.held(l.Node, d, first)
		if !held {
			return true
		}
		select {
		case <-changed:
		case <-l.ended:
			return false
		}
	}
}
