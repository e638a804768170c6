package bare

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Config says what a node is.
type Config struct {
	ID      int      // its place in Raft
	Raft    []string // addresses of all nodes, for raft
	Clients string   // its address for clients
	Dir     string
}

// raft's settings, as onceq's own where speed hangs on them.
const (
	maxAppendEntries = 8
	rpcsInFlight     = 2
	peerPool         = 3
	peerTimeout      = 10 * time.Second
	silence          = 3 * time.Second
)

// node is one of three.
type node struct {
	leads     func() bool
	proposer  *proposer
	deliverer *deliverer

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// newNode is a node without raft yet, and the machine that raft is to apply to.
func newNode() (*node, *machine) {
	n := &node{deliverer: newDeliverer(), conns: map[net.Conn]bool{}}
	n.proposer = newProposer(func(error) { n.dropClients() })
	return n, &machine{
		queues: map[uint32]*queue{}, stored: n.deliverer.stored, acked: n.deliverer.acked, gone: n.deliverer.gone,
		applied: func(number uint64) {
			n.proposer.applied(number)
			n.deliverer.send()
		},
	}
}

// Run runs a node until something breaks.
func Run(c Config) error {
	dir := filepath.Join(c.Dir, "wal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	n, m := newNode()
	log, err := wal.Open(dir)
	if err != nil {
		return err
	}
	defer log.Close()
	r, err := openRaft(c, m, log)
	if err != nil {
		return err
	}
	n.leads = func() bool { return r.State() == raft.Leader }
	n.proposer.apply = r.Apply
	go n.proposer.run()
	go func() {
		for leads := range r.LeaderCh() {
			if !leads {
				n.dropClients()
			}
		}
	}()
	l, err := net.Listen("tcp", c.Clients)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go n.serve(conn)
	}
}

func openRaft(c Config, m *machine, log *wal.WAL) (*raft.Raft, error) {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(fmt.Sprint(c.ID))
	conf.MaxAppendEntries = maxAppendEntries
	conf.SnapshotThreshold = math.MaxUint64
	conf.SnapshotInterval = 24 * time.Hour
	// Nothing is measured of its elections, and one in the middle of a work ends that: a
	// busy machine stands still for longer than the half second of raft's defaults.
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = silence, silence, silence
	conf.NoLegacyTelemetry = true
	conf.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr})
	address, err := net.ResolveTCPAddr("tcp", c.Raft[c.ID])
	if err != nil {
		return nil, err
	}
	trans, err := raft.NewTCPTransportWithConfig(c.Raft[c.ID], address, &raft.NetworkTransportConfig{
		MaxPool: peerPool, MaxRPCsInFlight: rpcsInFlight, Timeout: peerTimeout, Logger: conf.Logger})
	if err != nil {
		return nil, err
	}
	snapshots := raft.NewDiscardSnapshotStore()
	if c.ID == 0 { // the others hear of it
		var all raft.Configuration
		for i, a := range c.Raft {
			all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(a)})
		}
		if err := raft.BootstrapCluster(conf, log, log, snapshots, trans, all); err != nil {
			return nil, err
		}
	}
	return raft.NewRaft(conf, m, log, log, snapshots, trans)
}

// client is a connection, as the node that leads sees it.
type client struct {
	out  *outbox
	room int // deliveries that it may have more; guarded by deliverer.mu
}

func (n *node) dropClients() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Close()
	}
}

// serve reads what a client sends.
func (n *node) serve(conn net.Conn) {
	n.mu.Lock()
	n.conns[conn] = true
	n.mu.Unlock()
	c := &client{out: newOutbox(conn)}
	done := make(chan struct{})
	defer func() {
		close(done)
		conn.Close()
		n.mu.Lock()
		delete(n.conns, conn)
		n.mu.Unlock()
		n.deliverer.forget(c)
	}()
	go c.out.run(done)
	leads := n.leads()
	c.out.frame(kindHello, func(out []byte) []byte {
		if leads {
			return append(out, 1)
		}
		return append(out, 0)
	})
	if !leads {
		io.Copy(io.Discard, conn) // until it has heard, and goes to another
		return
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		k, body, err := readFrame(r)
		if err == nil {
			err = n.take(c, k, body)
		}
		if err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "client:", err)
			}
			return
		}
	}
}

// take does what a frame asks for.
func (n *node) take(c *client, k kind, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%w: a frame without a queue", errMalformed)
	}
	switch k {
	case kindPublish:
		count, err := blocks(body[4:])
		if err != nil {
			return err
		}
		n.proposer.add(k, body, c, uint32(count))
	case kindAck:
		if len(body)%8 != 4 {
			return fmt.Errorf("%w: acks of %d bytes", errMalformed, len(body))
		}
		n.proposer.add(k, body, c, 0)
	case kindDelete:
		n.proposer.add(k, body[:4], c, 1)
	case kindSubscribe:
		if len(body) != 8 {
			return fmt.Errorf("%w: a subscription of %d bytes", errMalformed, len(body))
		}
		n.deliverer.subscribe(c, binary.BigEndian.Uint32(body), int(binary.BigEndian.Uint32(body[4:])))
		n.deliverer.send()
	default:
		return fmt.Errorf("%w: a frame of kind %d", errMalformed, k)
	}
	return nil
}
