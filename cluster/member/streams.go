package member

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// DialFunc opens connections to other nodes.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// EnrollPolicy says who may ask, propose and join over streams that carry no
// proof, in a cluster whose operator gave no key. With a key it has no meaning:
// everybody needs the key.
type EnrollPolicy uint8

const (
	// EnrollLoopback: only from this machine. The default.
	EnrollLoopback EnrollPolicy = iota
	// EnrollOpen: whoever reaches the port. For networks that the operator calls
	// safe, and for tests in virtual time.
	EnrollOpen
	// EnrollKeyed: nobody.
	EnrollKeyed
)

// Limits of node-to-node streams.
const (
	handshakesMax   = 128 // streams that are not authenticated
	requestsMax     = 128 // streams whose one request is not answered yet
	raftStreamsMax  = 512 // raft streams, both directions
	raftBacklog     = 64  // authenticated raft streams that raft has not taken yet
	enrollTimeout   = 10 * time.Second
	refusalLogEvery = time.Second
)

// ErrStreamsClosed is returned after Close.
var ErrStreamsClosed = errors.New("node streams are closed")

// StreamConfig says how to reach other nodes and how they reach this one.
type StreamConfig struct {
	Dir *Dir
	// Listener gives connections that begin with the byte 'R'.
	Listener net.Listener
	// Dial opens connections; nil uses a net.Dialer.
	Dial DialFunc
	// Address is this node's address as others should use it.
	Address string
	// GossipAddress is where others reach its gossip, "" if there is none.
	GossipAddress string
	Enroll        EnrollPolicy
	// Allow may refuse raft streams by server id; nil allows each that has the
	// cluster secret. See SetAllow.
	Allow func(raft.ServerID) error
	// OnJoin decides JoinRequests. See SetOnJoin.
	OnJoin func(context.Context, JoinRequest) (JoinAnswer, error)
	Logger *slog.Logger
}

// Streams accepts and opens the connections between nodes.
//
// Goroutines: one that accepts; one for each connection until it is
// authenticated and handed to raft or its one request is answered. Close waits
// for all of them.
type Streams struct {
	dir       *Dir
	listener  net.Listener
	dialFunc  DialFunc
	enroll    EnrollPolicy
	log       *slog.Logger
	refusals  *rateLog
	raftLayer *raftLayer
	known     *knownPeers
	lastRound atomic.Pointer[Round] // what Form saw last; nil before
	requests  chan struct{}         // one for each node request that is being served
	ctx       context.Context       // ends with Close; for requests being served
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu      sync.Mutex // guards what follows
	onJoin  func(context.Context, JoinRequest) (JoinAnswer, error)
	allow   func(raft.ServerID) error
	open    map[net.Conn]struct{} // connections in handshake or being served
	strange list.List             // of those, the ones that have not proved who they are, oldest first
	closed  bool
}

// NewStreams notes the addresses in the identity and begins to accept. The
// listener belongs to Streams from now on.
func NewStreams(cfg StreamConfig) (*Streams, error) {
	if cfg.Dir == nil || cfg.Listener == nil {
		return nil, errors.New("node streams need a data directory and a listener")
	}
	if err := checkAddress(cfg.Address); err != nil {
		return nil, fmt.Errorf("advertised %w", err)
	}
	if cfg.GossipAddress != "" {
		if err := checkAddress(cfg.GossipAddress); err != nil {
			return nil, fmt.Errorf("advertised gossip %w", err)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if err := cfg.Dir.setAddresses(cfg.Address, cfg.GossipAddress); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Streams{
		dir: cfg.Dir, listener: cfg.Listener, dialFunc: cfg.Dial, enroll: cfg.Enroll, log: cfg.Logger,
		refusals: &rateLog{log: cfg.Logger, every: refusalLogEvery},
		known:    &knownPeers{},
		requests: make(chan struct{}, requestsMax),
		ctx:      ctx, cancel: cancel,
		onJoin: cfg.OnJoin, allow: cfg.Allow, open: make(map[net.Conn]struct{}),
	}
	s.raftLayer = newRaftLayer(s, cfg.Address)
	s.wg.Go(s.accept)
	return s, nil
}

// Raft is the stream layer for raft's network transport. Closing it ends every
// raft stream, incoming and outgoing, and leaves the rest as it is.
func (s *Streams) Raft() raft.StreamLayer { return s.raftLayer }

// SetOnJoin gives the function that decides JoinRequests. Until then they are
// answered "not ready".
func (s *Streams) SetOnJoin(f func(context.Context, JoinRequest) (JoinAnswer, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onJoin = f
}

// SetAllow gives the function that may refuse raft streams by server id.
func (s *Streams) SetAllow(f func(raft.ServerID) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allow = f
}

// SetOnRaftEnd gives the function that is told when the last of the raft streams
// that a peer has opened to this node has ended. It must not block.
func (s *Streams) SetOnRaftEnd(f func(raft.ServerID)) {
	s.raftLayer.mu.Lock()
	defer s.raftLayer.mu.Unlock()
	s.raftLayer.onEnd = f
}

// RaftStreamsFrom is how many raft streams a peer has opened to this node.
func (s *Streams) RaftStreamsFrom(id raft.ServerID) int {
	s.raftLayer.mu.Lock()
	defer s.raftLayer.mu.Unlock()
	return s.raftLayer.incoming[id]
}

// EndRaftFrom ends the raft streams that a peer has opened to this node, and EndRaftTo
// those that this node has opened to a peer. raft opens others.
func (s *Streams) EndRaftFrom(id raft.ServerID) {
	s.raftLayer.end(func(c *raftConn) bool { return c.from == id })
}

// EndRaftTo: see EndRaftFrom.
func (s *Streams) EndRaftTo(id raft.ServerID) {
	s.raftLayer.end(func(c *raftConn) bool { return c.to == id })
}

// Close ends all streams and waits. It may be called twice.
func (s *Streams) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.raftLayer.Close()
	s.wg.Wait()
	return err
}

func (s *Streams) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, say: others will be freed.
			s.refusals.warn("accept of a node stream", "error", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		place := s.track(c)
		if place == nil {
			c.Close()
			return
		}
		s.wg.Go(func() { s.serve(c, place) })
	}
}

// track notes a connection for Close, as one that has not proved who it is; nil if that
// has been called already. Beyond the limit the oldest of those has to go: a member
// proves itself at once, and must not be kept out by who says nothing.
func (s *Streams) track(c net.Conn) *list.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.strange.Len() >= handshakesMax {
		oldest := s.strange.Remove(s.strange.Front()).(net.Conn)
		s.refusals.warn("too many node streams wait for authentication, the oldest is closed", "remote", oldest.RemoteAddr(), "limit", handshakesMax)
		oldest.Close()
	}
	s.open[c] = struct{}{}
	return s.strange.PushBack(c)
}

// proved: the handshake has ended.
func (s *Streams) proved(place *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strange.Remove(place) // nothing when it had to make room
}

func (s *Streams) untrack(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *Streams) serve(c net.Conn, place *list.Element) {
	defer s.untrack(c)
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	h, err := acceptHandshake(c, gate{
		self: s.dir.Identity().ServerID,
		key:  func(h hello) ([]byte, error) { return s.keyFor(h, c.RemoteAddr()) },
		admit: func(h hello) error {
			s.mu.Lock()
			allow := s.allow
			s.mu.Unlock()
			if h.Purpose != purposeRaft || allow == nil {
				return nil
			}
			return allow(h.ServerID)
		},
	})
	s.proved(place)
	if err != nil {
		if s.ctx.Err() == nil {
			s.refusals.warn("refused a node stream", "remote", c.RemoteAddr(), "from", string(h.ServerID), "error", err)
		}
		c.Close()
		return
	}
	rc := newRecordConn(c)
	if h.Purpose == purposeRaft {
		c.SetDeadline(time.Time{})
		s.raftLayer.deliver(rc, h.ServerID)
		return
	}
	defer c.Close()
	select {
	case s.requests <- struct{}{}:
		defer func() { <-s.requests }()
	default:
		s.refusals.warn("too many node requests", "limit", requestsMax)
		return
	}
	c.SetDeadline(time.Now().Add(enrollTimeout))
	ctx, cancel := context.WithTimeout(s.ctx, enrollTimeout)
	defer cancel()
	if err := s.serveEnroll(ctx, rc, h); err != nil && s.ctx.Err() == nil {
		s.refusals.warn("node request failed", "remote", c.RemoteAddr(), "from", string(h.ServerID), "purpose", h.Purpose.String(), "error", err)
	}
}

// keyFor is the key that a client has to prove, or why it is refused.
func (s *Streams) keyFor(h hello, remote net.Addr) ([]byte, error) {
	own := s.dir.Identity()
	if h.Purpose == purposeRaft {
		switch {
		case h.Key != keySecret:
			return nil, fmt.Errorf("%w: raft stream without the cluster secret", errHandshake)
		case own.Stage < StageAccepted:
			return nil, fmt.Errorf("%w: node %s belongs to no cluster", errHandshake, own.Name)
		case h.Cluster != own.Cluster.ID:
			return nil, fmt.Errorf("%w: node %s belongs to cluster %s, not to %q", errHandshake, own.Name, own.Cluster.ID, h.Cluster)
		case h.Incarnation != own.Cluster.Incarnation:
			return nil, fmt.Errorf("%w: cluster %s has incarnation %x, not %x: one of the two was restored", errHandshake, own.Cluster.ID, own.Cluster.Incarnation, h.Incarnation)
		}
		return own.Cluster.Secret[:], nil
	}
	operator := s.dir.operatorKey()
	switch {
	case operator != nil && h.Key == keyOperator:
		return operator, nil
	case operator != nil:
		return nil, fmt.Errorf("%w: node %s wants the cluster key: give --cluster-key", errHandshake, own.Name)
	case h.Key != keyOpen:
		return nil, fmt.Errorf("%w: node %s was not given a cluster key", errHandshake, own.Name)
	case s.enroll == EnrollOpen, s.enroll == EnrollLoopback && isLoopback(remote):
		return openKey[:], nil
	}
	return nil, fmt.Errorf("%w: without a cluster key node %s talks to its own machine only: give --cluster-key on every node", errHandshake, own.Name)
}

func isLoopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// dial opens an authenticated stream. want is the server id that has to be
// there, "" for any.
func (s *Streams) dial(ctx context.Context, address string, p purpose, want raft.ServerID) (*recordConn, raft.ServerID, error) {
	own := s.dir.Identity()
	h := hello{Purpose: p, ServerID: own.ServerID, Cluster: own.Cluster.ID, Incarnation: own.Cluster.Incarnation}
	var key []byte
	switch operator := s.dir.operatorKey(); {
	case p == purposeRaft:
		if own.Stage < StageCommitted {
			return nil, "", fmt.Errorf("dial %s: this node belongs to no cluster", address)
		}
		h.Key, key = keySecret, own.Cluster.Secret[:]
	case operator != nil:
		h.Key, key = keyOperator, operator
	default:
		h.Key, key = keyOpen, openKey[:]
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	c, err := s.dialFunc(ctx, "tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("dial %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	id, err := dialHandshake(c, key, h, want)
	if !stop() && err == nil {
		err = ctx.Err() // closed by the end of ctx
	}
	if err != nil {
		c.Close()
		return nil, "", fmt.Errorf("dial %s: %w", address, err)
	}
	return newRecordConn(c), id, nil
}

// knownPeers remembers who has asked this node or was named by others, newest
// last.
type knownPeers struct {
	mu sync.Mutex
	ps []Peer
}

func (k *knownPeers) add(ps ...Peer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range ps {
		k.ps = slices.DeleteFunc(k.ps, func(o Peer) bool { return o.ServerID == p.ServerID || o.Address == p.Address })
		if len(k.ps) == peersMax {
			k.ps = slices.Delete(k.ps, 0, 1)
		}
		k.ps = append(k.ps, p)
	}
}

func (k *knownPeers) list() []Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.ps)
}
