package bare

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// startNode starts a node without raft: what is proposed is applied at once.
func startNode(t *testing.T) (*node, string) {
	t.Helper()
	n, m := newNode()
	n.proposer.lost = func(err error) { t.Error(err) }
	n.proposer.apply = func(entry []byte, _ time.Duration) raft.ApplyFuture {
		return done{m.Apply(&raft.Log{Data: entry})}
	}
	go n.proposer.run()
	n.leads = func() bool { return true }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(conn)
		}
	}()
	return n, l.Addr().String()
}

// done is the future of an entry that was applied, with this for an answer.
type done struct{ answer any }

func (d done) Error() error {
	err, _ := d.answer.(error)
	return err
}
func (d done) Index() uint64 { return 0 }
func (d done) Response() any { return d.answer }

func dial(t *testing.T, address string) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), []string{address})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNode_EachMessageIsConfirmedAndDeliveredOnce over several connections, to consumers
// that have room for fewer than there are.
func TestNode_EachMessageIsConfirmedAndDeliveredOnce(t *testing.T) {
	t.Parallel()
	_, address := startNode(t)
	const producers, consumers, each = 3, 2, 5000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	var consuming, publishing sync.WaitGroup
	for range consumers {
		c := dial(t, address)
		consuming.Go(func() {
			err := c.Consume(ctx, "q", 100, func(body []byte) {
				mu.Lock()
				defer mu.Unlock()
				if seen[string(body)]++; len(seen) == producers*each && seen[string(body)] == 1 {
					close(all)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for i := range producers {
		p := NewProducer(dial(t, address), "q")
		publishing.Go(func() {
			defer p.Close()
			for n := range each {
				p.Publish(fmt.Appendf(nil, "%d/%d", i, n))
			}
			if err := p.Wait(each, 60*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	publishing.Wait()
	select {
	case <-all:
	case <-time.After(60 * time.Second):
		t.Errorf("%d of %d", len(seen), producers*each)
	}
	cancel()
	consuming.Wait()
	for body, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", body, n)
		}
	}
}

// TestNode_DeletedQueue_LeavesNothing, and what is published behind it is there.
func TestNode_DeletedQueue_LeavesNothing(t *testing.T) {
	t.Parallel()
	n, address := startNode(t)
	p := NewProducer(dial(t, address), "q")
	defer p.Close()
	p.Publish([]byte("before"))
	if err := p.Wait(p.Delete(), 60*time.Second); err != nil {
		t.Fatal(err)
	}
	n.deliverer.mu.Lock()
	left := len(n.deliverer.queues)
	n.deliverer.mu.Unlock()
	if left != 0 {
		t.Errorf("%d queues are left", left)
	}
	p.Delete()
	p.Publish([]byte("behind"))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := dial(t, address).Consume(ctx, "q", 9, func(body []byte) {
		if string(body) != "behind" {
			t.Errorf("%s came", body)
		}
		cancel()
	}); err != nil {
		t.Error(err)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		t.Error("nothing came")
	}
}

// TestNode_BadInput_EndsItsConnectionAlone.
func TestNode_BadInput_EndsItsConnectionAlone(t *testing.T) {
	t.Parallel()
	_, address := startNode(t)
	p := NewProducer(dial(t, address), "q")
	defer p.Close()
	frame := func(k kind, body ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
		return append(append(b, k), body...)
	}
	for name, b := range map[string][]byte{
		"too long": {0xff, 0xff, 0xff, 0xff, kindPublish}, "without a kind": {0, 0, 0, 0, 0}, "of no kind": frame(99, 0, 0, 0, 1),
		"without a queue": frame(kindPublish, 0, 0), "half a length": frame(kindPublish, 0, 0, 0, 1, 0, 0),
		"a message longer than its block": frame(kindPublish, 0, 0, 0, 1, 0, 0, 0, 9, 1), "half an offset": frame(kindAck, 0, 0, 0, 1, 7),
		"a prefetch too few": frame(kindSubscribe, 0, 0, 0, 1),
	} {
		c := dial(t, address)
		if _, err := c.conn.Write(b); err != nil {
			t.Fatal(err)
		}
		c.conn.SetReadDeadline(time.Now().Add(60 * time.Second))
		if _, err := io.ReadAll(c.r); err != nil && !isReset(err) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	if err := p.Wait(p.Publish([]byte("x")), 60*time.Second); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

// isReset tells the end of a connection whose last bytes were not read.
func isReset(err error) bool {
	var e net.Error
	return errors.As(err, &e) && !e.Timeout()
}

// TestMachine_MalformedEntry_IsRefused, whatever it says of its lengths.
func TestMachine_MalformedEntry_IsRefused(t *testing.T) {
	t.Parallel()
	m := &machine{queues: map[uint32]*queue{}, applied: func(uint64) {}, stored: func(uint32, uint64, []byte) {}, acked: func(uint32, uint64) {}, gone: func(uint32) {}}
	good := appendCommand(make([]byte, entryHead), kindPublish, []byte{0, 0, 0, 1, 0, 0, 0, 1, 'x'})
	if err := m.Apply(&raft.Log{Data: good}); err != nil {
		t.Fatal(err)
	}
	if q := m.queues[1]; q == nil || q.next != 1 || string(q.messages[0]) != "x" {
		t.Fatalf("%+v", m.queues)
	}
	for n := range len(good) {
		if err, _ := m.Apply(&raft.Log{Data: good[:n]}).(error); n != entryHead && !errors.Is(err, errMalformed) {
			t.Errorf("%d of %d bytes: %v", n, len(good), err)
		}
	}
}

// TestProducer_ItsConnectionEnds_WhoWaitsHears.
func TestProducer_ItsConnectionEnds_WhoWaitsHears(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	p := NewProducer(&Conn{conn: ours, r: bufio.NewReader(ours)}, "q")
	defer p.Close()
	go io.Copy(io.Discard, theirs)
	n := p.Publish(bytes.Repeat([]byte{1}, 100))
	if err := p.Wait(n, time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	theirs.Close()
	if err := p.Wait(n, 60*time.Second); err == nil || errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
}
