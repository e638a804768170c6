package bare

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// queueNumber is the number of a queue of that name.
func queueNumber(name string) uint32 {
	h := fnv.New32a()
	io.WriteString(h, name)
	return h.Sum32()
}

// ErrNoLeader says that no node leads.
var ErrNoLeader = errors.New("no node leads")

// Conn is a connection to the node that leads.
type Conn struct {
	Node int // its place among the addresses
	conn net.Conn
	r    *bufio.Reader
}

// Close ends the connection.
func (c *Conn) Close() { c.conn.Close() }

// Dial connects to the one of these that leads.
func Dial(ctx context.Context, addresses []string) (*Conn, error) {
	var d net.Dialer
	last := ErrNoLeader
	for i, a := range addresses {
		conn, err := d.DialContext(ctx, "tcp", a)
		if err != nil {
			last = err
			continue
		}
		r := bufio.NewReaderSize(conn, 64<<10)
		k, body, err := readFrame(r)
		if err == nil && k == kindHello && len(body) == 1 && body[0] == 1 {
			return &Conn{i, conn, r}, nil
		}
		conn.Close()
		if err != nil {
			last = err
		}
	}
	return nil, last
}

// Producer publishes to one queue.
type Producer struct {
	queue uint32
	out   *outbox
	done  chan struct{}
	open  int // where the frame begins that takes more; guarded by out.mu
	sent  uint64

	confirmed atomic.Uint64
	mu        sync.Mutex    // guards what follows
	more      chan struct{} // closed when there are more confirmations, or err is set
	err       error
}

// NewProducer publishes over a connection, which it closes.
func NewProducer(c *Conn, queue string) *Producer {
	p := &Producer{queue: queueNumber(queue), out: newOutbox(c.conn), done: make(chan struct{}), more: make(chan struct{})}
	go p.out.run(p.done)
	go p.read(c.r)
	return p
}

// publishFrame is where a frame of publishes ends and the next one begins, in bytes: a
// node takes each into memory as a whole.
const publishFrame = 64 << 10

// Publish sends a message, and returns its number for Wait. It is for one goroutine.
func (p *Producer) Publish(body []byte) (number uint64) {
	p.out.add(func(out []byte) []byte {
		if len(out) == 0 || len(out)-p.open+len(body) > publishFrame {
			p.open = len(out)
			out = append(out, 0, 0, 0, 0, kindPublish)
			out = binary.BigEndian.AppendUint32(out, p.queue)
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
		out = append(out, body...)
		binary.BigEndian.PutUint32(out[p.open:], uint32(len(out)-p.open-4))
		return out
	})
	p.sent++
	return p.sent
}

func (p *Producer) read(r *bufio.Reader) {
	for {
		k, body, err := readFrame(r)
		if err == nil && (k != kindConfirmed || len(body) != 4) {
			err = fmt.Errorf("%w: a frame of kind %d", errMalformed, k)
		}
		p.mu.Lock()
		if err == nil {
			p.confirmed.Add(uint64(binary.BigEndian.Uint32(body)))
		}
		p.err = err
		close(p.more)
		if err == nil {
			p.more = make(chan struct{})
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// ErrTimeout says that a confirmation did not come in time.
var ErrTimeout = errors.New("not confirmed in time")

// Wait waits for the confirmation of a message, for at most timeout unless that is 0.
func (p *Producer) Wait(number uint64, timeout time.Duration) error {
	if p.confirmed.Load() >= number {
		return nil
	}
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	for {
		p.mu.Lock()
		more, err := p.more, p.err
		p.mu.Unlock()
		switch {
		case p.confirmed.Load() >= number:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-more:
		case <-late:
			return ErrTimeout
		}
	}
}

// Delete removes the queue with what is in it, and returns the number of that for Wait,
// as Publish does.
func (p *Producer) Delete() (number uint64) {
	p.out.add(func(out []byte) []byte {
		p.open = -publishFrame // whatever comes next has a frame of its own
		out = append(out, 0, 0, 0, 5, kindDelete)
		return binary.BigEndian.AppendUint32(out, p.queue)
	})
	p.sent++
	return p.sent
}

// Close ends the connection.
func (p *Producer) Close() { close(p.done) }

// Consume subscribes over a connection, which it closes, and acks what handle has
// returned from, until ctx ends.
func (c *Conn) Consume(ctx context.Context, queue string, prefetch int, handle func(body []byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	number := queueNumber(queue)
	out := newOutbox(c.conn)
	go out.run(ctx.Done()) // and then the connection is closed
	out.frame(kindSubscribe, func(b []byte) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, number), uint32(prefetch))
	})
	for {
		k, body, err := readFrame(c.r)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && k != kindDeliver {
			err = fmt.Errorf("%w: a frame of kind %d", errMalformed, k)
		}
		if err != nil {
			return err
		}
		acks := make([]byte, 0, 4096)
		for len(body) > 0 {
			if len(body) < 8 {
				return fmt.Errorf("%w: a delivery of %d bytes", errMalformed, len(body))
			}
			message, rest, err := block(body[8:])
			if err != nil {
				return err
			}
			handle(message)
			acks = append(acks, body[:8]...)
			body = rest
		}
		out.frame(kindAck, func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(b, number), acks...) })
	}
}
