package member

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftLayer is raft's StreamLayer. raft's network transport leaves accepted and
// pooled connections open when it is closed and its goroutines waiting on them,
// so the layer keeps count of all and closes them.
type raftLayer struct {
	streams *Streams
	addr    nodeAddr
	queue   chan net.Conn   // authenticated, not yet accepted by raft
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu       sync.Mutex // guards what follows
	conns    map[*raftConn]struct{}
	incoming map[raft.ServerID]int // streams from each peer
	onEnd    func(raft.ServerID)   // see Streams.SetOnRaftEnd
}

var _ raft.StreamLayer = (*raftLayer)(nil)

func newRaftLayer(s *Streams, address string) *raftLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &raftLayer{
		streams: s, ctx: ctx, cancel: cancel, addr: nodeAddr(address),
		queue:    make(chan net.Conn, raftBacklog),
		conns:    make(map[*raftConn]struct{}),
		incoming: make(map[raft.ServerID]int),
	}
}

// Dial opens a stream to a DialedAddress. An address without server id is
// refused: whoever answers there could acknowledge entries for another node.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, plain := splitDialed(address)
	if id == "" {
		return nil, fmt.Errorf("dial %s: no server id in the address", address)
	}
	ctx := l.ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	c, _, err := l.streams.dial(ctx, plain, purposeRaft, id)
	if err != nil {
		return nil, err
	}
	return l.own(c, "", id)
}

// deliver hands an authenticated incoming stream to raft. A node that has not
// started raft yet keeps a few.
func (l *raftLayer) deliver(c net.Conn, from raft.ServerID) {
	rc, err := l.own(c, from, "")
	if err != nil {
		l.streams.refusals.warn("refused a raft stream", "remote", c.RemoteAddr(), "error", err)
		return
	}
	select {
	case <-l.ctx.Done():
		rc.Close()
	default:
		select {
		case l.queue <- rc:
		default:
			l.streams.refusals.warn("too many raft streams wait to be accepted", "limit", raftBacklog)
			rc.Close()
		}
	}
}

// own counts a connection among those that Close ends, or closes it. from is who
// has opened it, or to whom this node has.
func (l *raftLayer) own(c net.Conn, from, to raft.ServerID) (*raftConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ctx.Done():
		c.Close()
		return nil, ErrStreamsClosed
	default:
	}
	if len(l.conns) >= raftStreamsMax {
		c.Close()
		return nil, fmt.Errorf("more than %d raft streams", raftStreamsMax)
	}
	rc := &raftConn{Conn: c, layer: l, from: from, to: to}
	l.conns[rc] = struct{}{}
	if from != "" {
		l.incoming[from]++
	}
	return rc, nil
}

// Accept waits for the next incoming stream.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case <-l.ctx.Done():
		return nil, ErrStreamsClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.ctx.Done():
		return nil, ErrStreamsClosed
	}
}

// Close ends every raft stream. It may be called twice.
func (l *raftLayer) Close() error {
	l.cancel()
	l.end(func(*raftConn) bool { return true })
	return nil
}

// end closes the streams that are chosen.
func (l *raftLayer) end(chosen func(*raftConn) bool) {
	l.mu.Lock()
	var conns []*raftConn
	for c := range l.conns {
		if chosen(c) {
			conns = append(conns, c)
		}
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// Addr is the advertised address.
func (l *raftLayer) Addr() net.Addr { return l.addr }

type nodeAddr string

func (nodeAddr) Network() string  { return "tcp" }
func (a nodeAddr) String() string { return string(a) }

// raftConn leaves the layer's count when it is closed, which raft does as soon as
// a read fails.
type raftConn struct {
	net.Conn
	layer *raftLayer
	// who has opened it, or to whom this node has; the other is ""
	from, to raft.ServerID
}

func (c *raftConn) Close() error {
	l := c.layer
	l.mu.Lock()
	_, open := l.conns[c]
	delete(l.conns, c)
	var ended func(raft.ServerID)
	if open && c.from != "" {
		if l.incoming[c.from]--; l.incoming[c.from] == 0 {
			delete(l.incoming, c.from)
			ended = l.onEnd
		}
	}
	l.mu.Unlock()
	err := c.Conn.Close()
	if ended != nil && l.ctx.Err() == nil {
		ended(c.from)
	}
	return err
}
