package clustertest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"sync"

	"onceq/transport"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Raw is a connection that speaks the wire's messages one by one, for tests of
// what a well-behaved client never does: late copies, repeated attaches.
type Raw struct {
	*transport.Conn
	Incarnation uint64

	mu       sync.Mutex
	pushed   []Push
	arrivals chan struct{} // cap 1
}

// Push is something the server said unasked.
type Push struct {
	Op      wire.Op
	Payload []byte
}

// DialRaw connects to one node.
func DialRaw(address string) (*Raw, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return NewRaw(ctx, nc)
}

// NewRaw shakes hands over a connection.
func NewRaw(ctx context.Context, nc net.Conn) (*Raw, error) {
	r := &Raw{arrivals: make(chan struct{}, 1)}
	c, err := transport.Connect(ctx, nc, transport.ClientConfig{
		Hello:  wire.Hello{Version: wire.Version, Client: "clustertest"},
		OnPush: r.push,
	})
	if err != nil {
		return nil, err
	}
	r.Conn, r.Incarnation = c, c.Welcome().Incarnation
	return r, nil
}

func (r *Raw) push(op wire.Op, payload []byte) {
	r.mu.Lock()
	r.pushed = append(r.pushed, Push{op, payload})
	r.mu.Unlock()
	select {
	case r.arrivals <- struct{}{}:
	default:
	}
}

// Pushed returns what was pushed so far.
func (r *Raw) Pushed() []Push {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Push(nil), r.pushed...)
}

// Deliveries returns the deliveries to a consumer's attachment so far.
func (r *Raw) Deliveries(c wire.ConsumerID, n uint64) (ds []wire.Delivery) {
	for _, p := range r.Pushed() {
		if p.Op != wire.OpDeliver {
			continue
		}
		d, err := wire.DecodeDeliver(p.Payload)
		if err == nil && d.Consumer == c && d.N == n {
			ds = append(ds, d.Deliveries...)
		}
	}
	return ds
}

// Arrived receives when something was pushed.
func (r *Raw) Arrived() <-chan struct{} { return r.arrivals }

type message interface{ Append(w *pack.Writer) }

// Ask sends a request and decodes its answer.
func Ask[A any](r *Raw, op wire.Op, m message, decode func([]byte) (A, error)) (A, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	var none A
	w := pack.NewWriter(nil)
	m.Append(w)
	_, payload, err := r.Call(ctx, op, w.Bytes())
	if err != nil {
		return none, err
	}
	return decode(payload)
}

// AtLeader asks at whichever node leads, again after every answer that is
// retriable and every lost connection.
func AtLeader[A any](c *Cluster, f func(r *Raw) (A, error)) A {
	c.t.Helper()
	var a A
	Eventually(c.t, func() string {
		leader := c.Leader()
		if leader == nil {
			return "no leader"
		}
		r, err := DialRaw(leader.Address)
		if err != nil {
			return err.Error()
		}
		defer r.Close()
		if a, err = f(r); err == nil {
			return ""
		}
		var refused *wire.Error
		if errors.As(err, &refused) && !refused.Retriable {
			c.t.Fatalf("at the leader: %v", err)
		}
		return err.Error()
	})
	return a
}

// NewNonce makes a nonce.
func NewNonce() (n wire.Nonce) {
	rand.Read(n[:])
	return n
}

// NewConsumer makes a consumer id.
func NewConsumer() (c wire.ConsumerID) {
	rand.Read(c[:])
	return c
}

// CreateQueue creates a queue with default settings.
func (r *Raw) CreateQueue(name string, s wire.QueueSettings) (wire.QueueReply, error) {
	return Ask(r, wire.OpQueueCreate, wire.QueueCreate{Incarnation: r.Incarnation, Group: 1, Name: name, Settings: s}, wire.DecodeQueueReply)
}

// OpenSession opens an unnamed session.
func (r *Raw) OpenSession() (wire.SessionOpened, error) {
	return Ask(r, wire.OpOpenSession, wire.OpenSession{Incarnation: r.Incarnation, Group: 1, Nonce: NewNonce()}, wire.DecodeSessionOpened)
}

// Publication is one message under one sequence.
func Publication(queue string, sequence uint64, body string) wire.Publish {
	ms := []wire.Message{{Body: []byte(body)}}
	return wire.Publish{Sequence: sequence, Checksum: wire.PublishChecksum(queue, ms), Messages: ms}
}

// Publish sends publishes of a session.
func (r *Raw) Publish(s wire.SessionOpened, floor uint64, queue string, ps ...wire.Publish) (wire.PublishReply, error) {
	return Ask(r, wire.OpPublish, wire.PublishFrame{
		Incarnation: r.Incarnation, Group: 1, Session: s.Session.Number, Epoch: s.Epoch, Floor: floor, Queue: queue, Publishes: ps,
	}, wire.DecodePublishReply)
}

// Attach attaches a consumer.
func (r *Raw) Attach(c wire.ConsumerID, n uint64, queue string, credit uint32, done uint64, unsettled ...wire.Range) (wire.Attached, error) {
	return Ask(r, wire.OpAttach, wire.Attach{
		Incarnation: r.Incarnation, Group: 1, Consumer: c, N: n, Queue: queue, Credit: credit, Done: done, Unsettled: unsettled,
	}, wire.DecodeAttached)
}

// Ack acknowledges deliveries from..to.
func (r *Raw) Ack(c wire.ConsumerID, done, from, to uint64) (wire.SettleReply, error) {
	return Ask(r, wire.OpSettle, wire.Settle{
		Incarnation: r.Incarnation, Group: 1, Consumer: c, Done: done,
		Items: []wire.SettleItem{{From: from, To: to, Verb: wire.VerbAck}},
	}, wire.DecodeSettleReply)
}

// Queue shows a queue.
func (r *Raw) Queue(name string) (wire.QueueReply, error) {
	return Ask(r, wire.OpQueueShow, wire.QueueShow{Name: name}, wire.DecodeQueueReply)
}

// Digest puts a digest into the log.
func (r *Raw) Digest() (wire.DigestReply, error) {
	return Ask(r, wire.OpDigest, wire.DigestRequest{}, wire.DecodeDigestReply)
}
