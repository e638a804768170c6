package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"onceq/transport/wire"
)

type options struct {
	logger *slog.Logger
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	label  string
	hook   func(ConnectionEvent)
}

// client is how servers see this client in their logs.
func (o *options) client() string {
	if o.label == "" {
		return "onceq-go"
	}
	return "onceq-go " + o.label
}

// Option changes how Dial makes a Client.
type Option func(*options)

// WithLogger makes the client log to l. The default discards, and so does nil.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) { o.logger = cmp.Or(l, slog.New(slog.DiscardHandler)) }
}

// WithDialer makes the client open its connections with d. The default is a
// net.Dialer.
func WithDialer(d func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = d }
}

// WithLabel sets a text that servers show for this client in logs and listings.
func WithLabel(label string) Option { return func(o *options) { o.label = label } }

// Client is a connection to a cluster. It is safe for concurrent use.
//
// Long-lived goroutines: one for each link (produce, consume), three for each
// connection, one for each Producer in use, and those of Consume, which its
// caller waits for.
type Client struct {
	o    options
	topo *topology

	chain   chain  // of ack-and-publishes
	hooks   *hooks // nil without a hook
	produce *link  // also for what is neither, such as Admin
	consume *link

	connects, connectErrors atomic.Uint64
	newestQueue             atomic.Uint64 // learned last
	deletions               atomic.Uint64 // of queues, as far as known

	ctx    context.Context // ends with Close; not a caller's
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// releasing are those among wg that give back what a cancelled receive has taken.
	releasing sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	consuming bool // the consume link runs
	consumers map[wire.ConsumerID]*consumer
	pullers   map[string][]*puller // idle, by queue
	queues    map[uint64]string    // names by number, as far as learned
	resolved  map[InnerMsgID]Outcome
}

// Dial connects to a cluster of which url names one or more nodes:
// "onceq://h1:7450,h2:7450" or "h1:7450,h2:7450". It finds the other nodes and
// follows the leader from then on. Dial asks each address once, and ctx bounds that:
// it succeeds when one node answers; when none does the error says why for each
// address (ErrUnreachable), and a program that starts before its cluster calls it
// again. After that nothing is given up while its context lasts.
func Dial(ctx context.Context, url string, opts ...Option) (*Client, error) {
	seeds, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	c := &Client{
		o:         options{logger: slog.New(slog.DiscardHandler), dial: (&net.Dialer{}).DialContext},
		topo:      newTopology(seeds),
		consumers: map[wire.ConsumerID]*consumer{},
		pullers:   map[string][]*puller{},
		queues:    map[uint64]string{},
		resolved:  map[InnerMsgID]Outcome{},
	}
	for _, o := range opts {
		o(&c.o)
	}
	if len(c.o.client()) > wire.LabelBytesMax {
		return nil, newError(wire.CodeBadName, "the label has %d bytes, at most %d are accepted", len(c.o.label), wire.LabelBytesMax)
	}
	leader, other, err := c.round(ctx, "")
	if err != nil {
		return nil, err
	}
	if other != nil {
		other.close()
	}
	c.chain.c = c
	c.hooks = newHooks(c.o.hook)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.produce, c.consume = newLink(c, "produce"), newLink(c, "consume")
	c.wg.Go(func() { c.produce.run(c.ctx, leader) })
	return c, nil
}

func parseURL(url string) ([]string, error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(url, "onceq://"), "/")
	if strings.Contains(rest, "/") {
		return nil, fmt.Errorf("address %q: write onceq://host:port,host:port", url)
	}
	var seeds []string
	for a := range strings.SplitSeq(rest, ",") {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("address %q: write host:port: %w", a, err)
		}
		seeds = append(seeds, a)
	}
	if len(seeds) == 0 {
		return nil, fmt.Errorf("address %q: no node is named: write onceq://host:port,host:port", url)
	}
	return seeds, nil
}

// Close ends everything that the client has started and waits for it. Publishes
// without an outcome end as unknown; running handlers are told through their
// context and waited for. To end in order, close the producers and end the
// contexts of Consume first. A handler cannot be waited for by itself: called by
// one, Close does nothing and says so.
func (c *Client) Close() error {
	if inCallback() {
		return errors.New("client: Close was called by a handler or hook that it would wait for; nothing was closed: end the context of Consume, and close the client after it")
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.chain.close()
	c.released()
	c.cancel()
	c.wg.Wait()
	c.hooks.close()
	return nil
}

// releaseTimeout bounds how long closing a client waits for what cancelled receives
// have taken to go back. What does not, comes back when its lease ends.
const releaseTimeout = time.Second

// released waits for who gives back what a receive has taken.
func (c *Client) released() {
	done := make(chan struct{})
	go func() {
		c.releasing.Wait()
		close(done)
	}()
	t := time.NewTimer(releaseTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// enter registers a call or goroutine that Close waits for, in other groups beside wg
// too; false after Close.
func (c *Client) enter(beside ...*sync.WaitGroup) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	for _, g := range beside {
		g.Add(1)
	}
	return true
}

// Cluster is the id of the cluster.
func (c *Client) Cluster() string { return c.topo.clusterID() }

// Stats returns counters since Dial.
func (c *Client) Stats() Stats {
	return Stats{
		LeaderChanges: c.topo.leaderChanges(),
		Connects:      c.connects.Load(),
		ConnectErrors: c.connectErrors.Load(),
	}
}

// Stats counts what a client has been through.
type Stats struct {
	LeaderChanges uint64 // seen by this client after the first leader
	Connects      uint64 // connections made, the first included
	ConnectErrors uint64 // attempts that failed
}

// push takes what a server sends unasked. It runs on a connection's reader.
func (c *Client) push(cn *conn, op wire.Op, payload []byte) {
	switch op {
	case wire.OpTopology:
		t, err := wire.DecodeTopology(payload)
		if err != nil {
			cn.fail(fmt.Errorf("read: %w", err))
			return
		}
		c.topo.learn(t, cn.welcome.Node)
	case wire.OpDeliver:
		d, err := wire.DecodeDeliver(payload)
		if err != nil {
			cn.fail(fmt.Errorf("read: %w", err))
			return
		}
		if s := c.consumer(d.Consumer); s != nil {
			s.deliver(cn, d, len(payload))
		}
	case wire.OpLost:
		l, err := wire.DecodeLost(payload)
		if err != nil {
			cn.fail(fmt.Errorf("read: %w", err))
			return
		}
		if s := c.consumer(l.Consumer); s != nil {
			s.lost(l)
		}
	default:
		// A newer server may push what this client does not know.
		c.o.logger.Debug("unknown push", "op", op)
	}
}

func (c *Client) consumer(id wire.ConsumerID) *consumer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.consumers[id]
}

// learnQueue remembers a queue's name, for ids that are looked up later. The
// table stays within queueNamesMax.
func (c *Client) learnQueue(number uint64, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queues) >= queueNamesMax {
		clear(c.queues)
	}
	c.queues[number] = name
}

// forgetQueues: numbers may have been given again since.
func (c *Client) forgetQueues() {
	c.newestQueue.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.queues)
}

// learnQueueOnce is learnQueue for the hot path.
func (c *Client) learnQueueOnce(number uint64, name string) {
	if c.newestQueue.Swap(number) != number {
		c.learnQueue(number, name)
	}
}

const queueNamesMax = 65_536
