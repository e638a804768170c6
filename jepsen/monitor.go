package jepsen

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/proc"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
)

const (
	statusInterval = 250 * time.Millisecond
	statusTimeout  = 700 * time.Millisecond
	digestInterval = 3 * time.Second
	countsInterval = time.Second
	sizesInterval  = time.Second
	askTimeout     = 3 * time.Second
	stallInterval  = 20 * time.Millisecond
	stallLeast     = 150 * time.Millisecond
)

// monitor asks the nodes what they know, over connections of its own that no
// fault of the proxy touches, and watches the harness itself.
type monitor struct {
	h       *history.Writer
	cluster *proc.Cluster
	queues  []string
	numbers bool         // queues may be missing at times, and have numbers
	stood   atomic.Int64 // for how long this process stood still in all, ns

	mu      sync.Mutex // guards what follows
	conns   map[string]*raw.Conn
	states  map[string]history.State // newest of each node
	changed chan struct{}            // closed and replaced at each answer
}

func newMonitor(h *history.Writer, c *proc.Cluster) *monitor {
	return &monitor{h: h, cluster: c, conns: map[string]*raw.Conn{}, states: map[string]history.State{}, changed: make(chan struct{})}
}

// run watches until ctx ends.
func (m *monitor) run(ctx context.Context) {
	var wg sync.WaitGroup
	names := m.cluster.Names()
	if spare := m.cluster.Spare(); spare != "" {
		names = append(names, spare)
	}
	for _, n := range names {
		wg.Go(func() { every(ctx, statusInterval, func() { m.status(ctx, n) }) })
		wg.Go(func() { every(ctx, sizesInterval, func() { m.sizes(n) }) })
	}
	wg.Go(func() { every(ctx, digestInterval, func() { m.digest(ctx) }) })
	wg.Go(func() { every(ctx, countsInterval, func() { m.counts(ctx) }) })
	wg.Go(func() { m.stalls(ctx) })
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		c.Close()
	}
}

func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// conn is the connection to a node, made if there is none.
func (m *monitor) conn(ctx context.Context, node string) (*raw.Conn, error) {
	m.mu.Lock()
	c := m.conns[node]
	m.mu.Unlock()
	if c != nil {
		select {
		case <-c.Done():
			c.Close()
		default:
			return c, nil
		}
	}
	c, err := raw.Dial(ctx, (&net.Dialer{}).DialContext, m.cluster.Address(node), "jepsen monitor", nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		delete(m.conns, node)
		return nil, err
	}
	if other := m.conns[node]; other != nil && other != c {
		defer other.Close()
	}
	m.conns[node] = c
	return c, nil
}

func (m *monitor) ask(ctx context.Context, node string, timeout time.Duration, op wire.Op, r raw.Message) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := m.conn(ctx, node)
	if err != nil {
		return nil, err
	}
	return c.Call(ctx, op, r)
}

// status writes what a node says of itself, if its process is the same before and
// after.
func (m *monitor) status(ctx context.Context, node string) bool {
	_, life := m.cluster.State(node)
	e := history.Event{Proc: "monitor", F: history.Status, Type: history.OK, Node: node, Life: life, Of: -1, T0: m.h.Now()}
	payload, err := m.ask(ctx, node, statusTimeout, wire.OpNodeStatus, wire.NodeStatusRequest{})
	if err != nil {
		m.learn(node, history.State{})
		return false
	}
	st, err := wire.DecodeNodeStatus(payload)
	if _, now := m.cluster.State(node); err != nil || now != life {
		return false
	}
	s := history.State{
		Role: st.Role, Leader: st.Leader, Term: st.Term, Applied: st.AppliedIndex, Commit: st.CommitIndex,
		Snapshot: st.SnapshotIndex, DigestIndex: st.DigestIndex, Digest: fmt.Sprintf("%016x", st.Digest), Serving: st.Serving,
	}
	e.T1, e.State = m.h.Now(), &s
	m.h.Add(e)
	m.learn(node, s)
	return true
}

func (m *monitor) learn(node string, s history.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[node] = s
	close(m.changed)
	m.changed = make(chan struct{})
}

// state is what a node said of itself last.
func (m *monitor) state(node string) history.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[node]
}

// leader is the node that says that it leads in the highest term.
func (m *monitor) leader() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, term := "", uint64(0)
	for n, s := range m.states {
		if s.Role == "leader" && s.Serving && s.Term >= term {
			name, term = n, s.Term
		}
	}
	return name
}

// serving waits until a node leads and serves.
func (m *monitor) serving(ctx context.Context) bool {
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if m.leader() != "" {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// newest says that the cluster has the newest version of the machine that its leader's
// build knows.
func (m *monitor) newest(ctx context.Context) bool {
	payload, err := m.ask(ctx, m.leader(), statusTimeout, wire.OpNodeStatus, wire.NodeStatusRequest{})
	if err != nil {
		return false
	}
	st, err := wire.DecodeNodeStatus(payload)
	return err == nil && st.MachineVersion >= st.MachineSupports
}

// caughtUp waits until all nodes answer, agree on a leader and have applied as
// much as it had when it was asked.
func (m *monitor) caughtUp(ctx context.Context) error {
	goal := uint64(0)
	for {
		m.mu.Lock()
		changed := m.changed
		behind := ""
		for _, n := range m.cluster.Names() {
			if s := m.states[n]; s.Term == 0 || s.Applied < goal {
				behind += fmt.Sprintf(" %s at %d", n, s.Applied)
			}
		}
		m.mu.Unlock()
		if leader := m.leader(); leader == "" {
			behind = " nobody leads"
		} else if goal == 0 {
			m.mu.Lock()
			goal = m.states[leader].Applied
			m.mu.Unlock()
			continue
		}
		if behind == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("not all nodes have applied %d:%s", goal, behind)
		}
	}
}

// digest makes the leader put a digest into the log; what the nodes have at its
// index shows in their statuses.
func (m *monitor) digest(ctx context.Context) {
	if leader := m.leader(); leader != "" {
		_, _ = m.ask(ctx, leader, askTimeout, wire.OpDigest, wire.DigestRequest{}) // the next one will do
	}
}

// counts writes what the leader counts. It returns the counts by queue.
func (m *monitor) counts(ctx context.Context) map[string]history.Queue {
	leader := m.leader()
	if leader == "" {
		return nil
	}
	all := map[string]history.Queue{}
	for _, q := range m.queues {
		e := history.Event{Proc: "monitor", F: history.Counts, Type: history.OK, Key: q, Node: leader, Of: -1, T0: m.h.Now()}
		payload, err := m.ask(ctx, leader, askTimeout, wire.OpQueueShow, wire.QueueShow{Name: q})
		if err != nil {
			return nil
		}
		reply, err := wire.DecodeQueueReply(payload)
		if err == nil && reply.Status == wire.StatusNoQueue && m.numbers {
			continue
		}
		if err != nil || reply.Status != wire.StatusOK {
			return nil
		}
		if m.numbers {
			e.Number = reply.Info.Number
		}
		c := reply.Info.Counts
		s := history.Queue{
			Stored: c.Stored, Ready: c.Ready, Leased: c.Leased, Delayed: c.Delayed, Parked: c.Parked, Acked: c.Acked, Purged: c.Purged,
			TooOld: c.Expired, DeadLettered: c.DeadLettered, Deleted: c.Deleted, Moved: c.Moved,
			Delivered: c.Delivered, Expired: c.RedeliveredExpired, Nacked: c.RedeliveredNacked, Gone: c.RedeliveredGone,
			Left: c.RedeliveredLeft, Duplicates: c.DuplicatesRefused,
		}
		e.T1, e.Queue = m.h.Now(), &s
		m.h.Add(e)
		all[q] = s
	}
	return all
}

// sizes writes what a node takes of disk and memory. It returns false when the disk does
// not say so.
func (m *monitor) sizes(node string) (history.Bytes, bool) {
	_, life := m.cluster.State(node)
	e := history.Event{Proc: "monitor", F: history.Sizes, Type: history.OK, Node: node, Life: life, Of: -1, T0: m.h.Now()}
	b, err := m.cluster.Sizes(node)
	if _, now := m.cluster.State(node); err != nil || life == 0 || now != life {
		return b, false
	}
	e.T1, e.Sizes = m.h.Now(), &b
	m.h.Add(e)
	return b, true
}

// late tells whether more than d has passed since now, without the times in which this
// process stood still, and mostly all others with it.
func (m *monitor) late(d time.Duration) func() bool {
	began, stood := time.Now(), m.stood.Load()
	return func() bool { return time.Since(began)-time.Duration(m.stood.Load()-stood) > d }
}

// within is a context that ends when it is late.
func (m *monitor) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	late := m.late(d)
	go every(ctx, stallInterval, func() {
		if late() {
			cancel()
		}
	})
	return ctx, cancel
}

// stalls writes when this process stood still: what it saw then it saw late.
func (m *monitor) stalls(ctx context.Context) {
	t := time.NewTicker(stallInterval)
	defer t.Stop()
	last := m.h.Now()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := m.h.Now()
		if time.Duration(now-last) > stallLeast {
			m.stood.Add(now - last)
			m.h.Add(history.Event{Proc: "monitor", F: history.Stall, Type: history.OK, Of: -1, T0: last, T1: now})
		}
		last = now
	}
}
