package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// fakeNet is a cluster of scripted nodes, reached over in-memory connections. A
// test takes the requests that arrive and answers them as it likes.
type fakeNet struct {
	t        *testing.T
	mu       sync.Mutex
	nodes    map[string]*fakeNode // by address
	order    []*fakeNode
	topology wire.Topology
	welcome  wire.Welcome // template
	wg       sync.WaitGroup
}

type fakeNode struct {
	net      *fakeNet
	name     string
	address  string
	down     error
	conns    map[*fakeConn]bool
	requests chan *fakeRequest
	auto     map[wire.Op]func(r *fakeRequest)
	hellos   []wire.Hello
	deaf     bool // reads nothing after the handshake
	frozen   bool // takes connections, as the kernel does for a stopped process, and says nothing
}

type fakeConn struct {
	node *fakeNode
	nc   net.Conn
	out  chan []byte
	end  chan struct{}
	once sync.Once

	mu    sync.Mutex     // guards what follows; a leaf
	open  map[uint32]int // payload bytes of requests without an answer that are no publishes
	bytes int            // all of these
}

type fakeRequest struct {
	t       *testing.T
	conn    *fakeConn
	op      wire.Op
	corr    uint32
	payload []byte
}

const fakeIncarnation = 0x0123456789abcdef

func newFakeNet(t *testing.T, names ...string) *fakeNet {
	n := &fakeNet{t: t, nodes: map[string]*fakeNode{}, topology: wire.Topology{Group: 1, Term: 1, Leader: names[0]}}
	n.welcome = wire.Welcome{
		Version: wire.Version, Cluster: "c1", Incarnation: fakeIncarnation,
		PublishWindow: 8 << 20, FrameBytesMax: 8 << 20, BodyBytesMax: 1 << 20,
	}
	for _, name := range names {
		node := &fakeNode{
			net: n, name: name, address: name + ":7450", conns: map[*fakeConn]bool{},
			requests: make(chan *fakeRequest, 10_000), auto: map[wire.Op]func(r *fakeRequest){},
		}
		n.nodes[node.address] = node
		n.order = append(n.order, node)
		n.topology.Nodes = append(n.topology.Nodes, wire.NodeAddress{Name: name, Address: node.address})
		node.auto[wire.OpPing] = func(r *fakeRequest) { r.reply(nil) }
	}
	return n
}

func (n *fakeNet) url() string { return "onceq://" + n.order[0].address }

func (n *fakeNet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.nodes[address]
	if node == nil {
		return nil, fmt.Errorf("no such host %s", address)
	}
	if node.down != nil {
		return nil, node.down
	}
	a, b := net.Pipe()
	c := &fakeConn{node: node, nc: b, out: make(chan []byte, 10_000), end: make(chan struct{}), open: map[uint32]int{}}
	node.conns[c] = true
	if node.frozen {
		return a, nil
	}
	n.wg.Go(c.read)
	n.wg.Go(c.write)
	return a, nil
}

// lead makes name the leader of term and, if told, pushes it to every client of a node
// that is not frozen.
func (n *fakeNet) lead(term uint64, name string, push bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.topology.Term, n.topology.Leader = term, name
	if !push {
		return
	}
	for _, node := range n.order {
		if node.frozen {
			continue
		}
		for c := range node.conns {
			c.push(wire.OpTopology, n.topology)
		}
	}
}

func (n *fakeNet) stop() {
	for _, node := range n.order {
		node.cut()
	}
	n.wg.Wait()
}

// cut ends every connection of the node.
func (node *fakeNode) cut() {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	for c := range node.conns {
		c.cut()
	}
}

// freeze stops the node without a word.
func (node *fakeNode) freeze() {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	node.frozen = true
	delete(node.auto, wire.OpPing)
}

func (node *fakeNode) setDown(err error) {
	node.net.mu.Lock()
	node.down = err
	node.net.mu.Unlock()
}

// expect waits for the next request that is not answered by itself.
func (node *fakeNode) expect(op wire.Op) *fakeRequest {
	node.net.t.Helper()
	select {
	case r := <-node.requests:
		if r.op != op {
			node.net.t.Fatalf("%s got %v, expected %v", node.name, r.op, op)
		}
		return r
	case <-time.After(60 * time.Second):
		node.net.t.Fatalf("%s got nothing, expected %v", node.name, op)
		return nil
	}
}

// quiet fails when the node has got a request, once nothing moves any more.
func (node *fakeNode) quiet() {
	node.net.t.Helper()
	synctest.Wait()
	select {
	case r := <-node.requests:
		node.net.t.Fatalf("%s got %v, expected nothing", node.name, r.op)
	default:
	}
}

func (c *fakeConn) cut() {
	c.once.Do(func() {
		close(c.end)
		_ = c.nc.Close()
	})
}

func (c *fakeConn) read() {
	defer func() {
		c.cut()
		c.node.net.mu.Lock()
		delete(c.node.conns, c)
		c.node.net.mu.Unlock()
	}()
	br := bufio.NewReader(c.nc)
	magic := make([]byte, 4)
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != wire.Magic {
		return
	}
	fr := wire.NewFrameReader(br, wire.FrameBytesMax)
	f, err := fr.Next()
	if err != nil {
		return
	}
	hello, err := wire.DecodeHello(f.Payload)
	if err != nil {
		return
	}
	n := c.node.net
	n.mu.Lock()
	c.node.hellos = append(c.node.hellos, hello)
	w := n.welcome
	w.Node, w.Topology = c.node.name, n.topology
	deaf := c.node.deaf
	n.mu.Unlock()
	c.frame(wire.OpHello, true, 0, w)
	if deaf {
		<-c.end
		return
	}
	for {
		f, err := fr.Next()
		if err != nil {
			return
		}
		if !c.admit(f) {
			n.t.Errorf("%s: more bytes of requests are unanswered than a server takes: it closes the connection", f.Op)
			return
		}
		r := &fakeRequest{t: n.t, conn: c, op: f.Op, corr: f.Corr, payload: f.Payload}
		n.mu.Lock()
		auto := c.node.auto[f.Op]
		n.mu.Unlock()
		if auto != nil {
			auto(r)
			continue
		}
		select {
		case c.node.requests <- r:
		case <-c.end:
			return
		}
	}
}

// admit counts a request as a server does.
func (c *fakeConn) admit(f wire.Frame) bool {
	if f.Op == wire.OpPublish {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[f.Corr] = len(f.Payload)
	c.bytes += len(f.Payload)
	return c.bytes <= wire.RequestBytesMax
}

func (c *fakeConn) answered(corr uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= c.open[corr]
	delete(c.open, corr)
}

func (c *fakeConn) write() {
	for {
		select {
		case b := <-c.out:
			if _, err := c.nc.Write(b); err != nil {
				c.cut()
				return
			}
		case <-c.end:
			return
		}
	}
}

type appender interface{ Append(w *pack.Writer) }

func (c *fakeConn) frame(op wire.Op, reply bool, corr uint32, m appender) {
	var w pack.Writer
	start := wire.BeginFrame(&w)
	if m != nil {
		m.Append(&w)
	}
	wire.EndFrame(&w, start, op, reply, corr)
	if reply {
		c.answered(corr)
	}
	select {
	case c.out <- w.Take():
	case <-c.end:
	}
}

func (c *fakeConn) push(op wire.Op, m appender) { c.frame(op, false, 0, m) }

func (r *fakeRequest) reply(m appender) { r.conn.frame(r.op, true, r.corr, m) }

func (r *fakeRequest) fail(code wire.Code, leader string) {
	e := wire.NewErrorReply(code, "scripted")
	e.Leader = leader
	r.conn.frame(wire.OpError, true, r.corr, e)
}

func decoded[T any](r *fakeRequest, decode func([]byte) (T, error)) T {
	r.t.Helper()
	v, err := decode(r.payload)
	if err != nil {
		r.t.Fatalf("%v: %v", r.op, err)
	}
	return v
}

func (r *fakeRequest) publish() wire.PublishFrame {
	r.t.Helper()
	f := decoded(r, wire.DecodePublishFrame)
	for _, p := range f.Publishes {
		if p.Checksum != wire.PublishChecksum(f.Queue, p.Messages) {
			r.t.Errorf("sequence %d: checksum does not match", p.Sequence)
		}
		if p.Sequence < f.Floor {
			r.t.Errorf("sequence %d below its frame's floor %d", p.Sequence, f.Floor)
		}
		if p.After >= p.Sequence {
			r.t.Errorf("sequence %d after %d", p.Sequence, p.After)
		}
	}
	return f
}

// results answers a publish with a status for each copy; the last one goes for
// the rest.
func (r *fakeRequest) results(sts ...wire.Status) {
	r.t.Helper()
	f := r.publish()
	var reply wire.PublishReply
	for i, p := range f.Publishes {
		st := sts[min(i, len(sts)-1)]
		res := wire.PublishResult{Sequence: p.Sequence, Status: st}
		if st == wire.StatusOK {
			res.Queue, res.Offset, res.Count = 7, 1000+p.Sequence, uint32(len(p.Messages))
		}
		reply.Results = append(reply.Results, res)
	}
	r.reply(reply)
}

// opens makes the node answer OpOpenSession with session numbers from number up.
func (node *fakeNode) opens(number uint64) {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	node.auto[wire.OpOpenSession] = func(r *fakeRequest) {
		r.reply(wire.SessionOpened{
			Status: wire.StatusOK, Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: number},
			Epoch: 1, Floor: 1, Next: 1, Expiry: 72 * time.Hour,
		})
		number++
	}
	node.auto[wire.OpCloseSession] = func(r *fakeRequest) { r.reply(wire.StatusReply{Status: wire.StatusOK}) }
}

func (node *fakeNode) manual(op wire.Op) {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	delete(node.auto, op)
}

// answer answers op by itself from now on.
func (node *fakeNode) answer(op wire.Op, how func(r *fakeRequest)) {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	node.auto[op] = how
}

// connections is how many there are.
func (node *fakeNode) connections() int {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	return len(node.conns)
}

// bubble runs a test in virtual time with a client of a fake cluster. Goroutines
// that are left over make it fail.
func bubble(t *testing.T, test func(t *testing.T, n *fakeNet, c *Client), names ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if len(names) == 0 {
			names = []string{"n1"}
		}
		n := newFakeNet(t, names...)
		for _, node := range n.order {
			node.opens(42)
		}
		c, err := Dial(t.Context(), n.url(), WithDialer(n.dial), WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		// Also after a failed test, or the bubble would wait for what is left.
		t.Cleanup(func() {
			_ = c.Close()
			n.stop()
		})
		test(t, n, c)
	})
}

func producer(t *testing.T, c *Client, opts ...ProducerOption) *Producer {
	t.Helper()
	p, err := c.NewProducer("orders", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// together lets nothing leave until all that f publishes is there, so that it goes in
// one frame.
func together(p *Producer, f func()) {
	p.mu.Lock()
	p.waitingRoom = true
	p.mu.Unlock()
	f()
	p.room()
}

// numbered publishes 0 to n-1 in one frame.
func numbered(ctx context.Context, p *Producer, n int) (all []*Future) {
	together(p, func() {
		for i := range n {
			all = append(all, p.PublishAsync(ctx, body(fmt.Sprint(i))))
		}
	})
	return all
}

// untilItCollects publishes, with a frame each, until what comes next is held back.
func untilItCollects(ctx context.Context, n1 *fakeNode, p *Producer) (sent []*Future, frames []*fakeRequest) {
	for i := range eagerFrames {
		sent = append(sent, p.PublishAsync(ctx, body(fmt.Sprint("sent ", i))))
		frames = append(frames, n1.expect(wire.OpPublish))
	}
	return sent, frames
}

func body(s string) Message { return Message{Body: []byte(s)} }

// published waits for a future and expects it to be stored.
func published(t *testing.T, f *Future) Receipt {
	t.Helper()
	r, err := f.Wait(t.Context())
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	return r
}

// refusedWith waits for a future and expects an error.
func refusedWith(t *testing.T, f *Future, target error) error {
	t.Helper()
	_, err := f.Wait(t.Context())
	if !errors.Is(err, target) {
		t.Fatalf("publish: %v, expected %v", err, target)
	}
	return err
}
