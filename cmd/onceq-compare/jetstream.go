package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsModule is built into the server.
const natsModule = "github.com/nats-io/nats-server/v2"

// jetstreamSystem is NATS JetStream: streams of three replicas with work-queue
// retention, consumed through one durable pull consumer.
type jetstreamSystem struct {
	binary  string
	version string
	always  bool // fsync before each confirmation
}

func (s *jetstreamSystem) Name() string {
	if s.always {
		return "jetstream-always"
	}
	return "jetstream"
}

func (s *jetstreamSystem) Version() string {
	if s.always {
		return s.version + ", sync_interval: always"
	}
	return s.version + ", its defaults (no fsync before a confirmation)"
}

func (s *jetstreamSystem) Durable() bool  { return s.always }
func (s *jetstreamSystem) Peer() bool     { return true }
func (s *jetstreamSystem) Does(work) bool { return true }

func (s *jetstreamSystem) Start(ctx context.Context, dir string) (cluster, error) {
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	c := &jetstreamCluster{}
	var routes []string
	for i := range nodes {
		c.urls = append(c.urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[nodes+i]))
	}
	sync := ""
	if s.always {
		sync = "sync_interval: always"
	}
	for i := range nodes {
		conf := fmt.Sprintf("server_name: n%d\nlisten: 127.0.0.1:%d\njetstream { store_dir: %q, max_mem: 1G, max_file: 50G\n %s }\ncluster { name: compare, listen: 127.0.0.1:%d\n routes: [%s] }\n",
			i, ports[i], filepath.Join(dir, fmt.Sprintf("js%d", i)), sync, ports[nodes+i], strings.Join(routes, ", "))
		file := filepath.Join(dir, fmt.Sprintf("n%d.conf", i))
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			c.Close()
			return nil, err
		}
		p, err := startProcess(filepath.Join(dir, fmt.Sprintf("n%d.log", i)), nil, s.binary, "-c", file)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.procs = append(c.procs, p)
	}
	err = until(ctx, "a JetStream cluster", func() error {
		if c.nc == nil {
			nc, err := c.dial(0)
			if err != nil {
				return err
			}
			if c.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(20*time.Second)); err != nil {
				return err
			}
			c.nc = nc
		}
		// The cluster is ready when it places a stream on three replicas.
		if err := c.Create(ctx, "ready", 0); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		return c.Delete(ctx, "ready")
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

type jetstreamCluster struct {
	procs []*process
	urls  []string
	nc    *nats.Conn
	js    jetstream.JetStream
}

func (c *jetstreamCluster) dial(node int) (*nats.Conn, error) {
	o := nats.GetDefaultOptions()
	o.Servers = []string{c.urls[node], c.urls[(node+1)%nodes], c.urls[(node+2)%nodes]}
	o.NoRandomize, o.MaxReconnect, o.ReconnectWait, o.ReconnectJitter = true, -1, 20*time.Millisecond, 0
	return o.Connect()
}

const durable = "c"

func (c *jetstreamCluster) Create(ctx context.Context, queue string, leases int) error {
	_, err := c.js.CreateStream(ctx, jetstream.StreamConfig{Name: queue, Subjects: []string{"q." + queue},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: nodes})
	if err == nil && leases > 0 {
		_, err = c.js.CreateConsumer(ctx, queue, jetstream.ConsumerConfig{Durable: durable,
			AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: leases})
	}
	return err
}

func (c *jetstreamCluster) Delete(ctx context.Context, queue string) error {
	return c.js.DeleteStream(ctx, queue)
}

// nodeOf is the number in a server's name.
func nodeOf(info *jetstream.ClusterInfo) (int, error) {
	var i int
	if info == nil {
		return 0, errors.New("jetstream: it is not said who leads")
	}
	if _, err := fmt.Sscanf(info.Leader, "n%d", &i); err != nil {
		return 0, fmt.Errorf("jetstream: leader %q", info.Leader)
	}
	return i, nil
}

// Leader waits out an election: a stream that was just made has no leader yet.
func (c *jetstreamCluster) Leader(ctx context.Context, queue string) (node int, err error) {
	err = until(ctx, "the leader of a JetStream stream", func() error {
		s, err := c.js.Stream(ctx, queue)
		if err == nil {
			node, err = nodeOf(s.CachedInfo().Cluster)
		}
		return err
	})
	return node, err
}

func (c *jetstreamCluster) Pids() []int         { return pidsOf(c.procs) }
func (c *jetstreamCluster) Kill(node int) error { c.procs[node].kill(); return nil }

func (c *jetstreamCluster) Close() {
	if c.nc != nil {
		c.nc.Close()
	}
	for _, p := range c.procs {
		p.kill()
	}
}

type jetstreamProducer struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	subject string
}

func (c *jetstreamCluster) Producer(ctx context.Context, queue string, inFlight int) (producer, error) {
	leader, err := c.Leader(ctx, queue)
	if err != nil {
		return nil, err
	}
	nc, err := c.dial(leader)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight+1000))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &jetstreamProducer{nc, js, "q." + queue}, nil
}

func (p *jetstreamProducer) Publish(id string, body []byte) (confirmation, error) {
	var o []jetstream.PublishOpt
	if id != "" {
		o = append(o, jetstream.WithMsgID(id))
	}
	f, err := p.js.PublishAsync(p.subject, body, o...)
	return jetstreamConfirmation{f}, err
}

func (p *jetstreamProducer) Close() { p.nc.Close() }

type jetstreamConfirmation struct{ f jetstream.PubAckFuture }

func (j jetstreamConfirmation) Wait(timeout time.Duration) error {
	var over <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-j.f.Ok():
		return nil
	case err := <-j.f.Err():
		return err
	case <-over:
		return errTimeout
	}
}

type jetstreamConsumer struct {
	nc       *nats.Conn
	c        jetstream.Consumer
	prefetch int
}

func (c *jetstreamCluster) Consumer(ctx context.Context, queue string, prefetch int) (consumer, error) {
	leader := 0 // of the consumer, which is a raft group of its own
	err := until(ctx, "the leader of a JetStream consumer", func() error {
		con, err := c.js.Consumer(ctx, queue, durable)
		if err == nil {
			leader, err = nodeOf(con.CachedInfo().Cluster)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	nc, err := c.dial(leader)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(20*time.Second))
	var con jetstream.Consumer
	if err == nil {
		con, err = js.Consumer(ctx, queue, durable)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &jetstreamConsumer{nc, con, prefetch}, nil
}

func (c *jetstreamConsumer) Run(ctx context.Context, handle func([]byte)) error {
	defer c.nc.Close()
	var failed error
	// A short expiry of pulls, so that a leader's end is noticed soon.
	cc, err := c.c.Consume(func(m jetstream.Msg) {
		handle(m.Data())
		if err := m.Ack(); err != nil {
			failed = err
		}
	}, jetstream.PullMaxMessages(c.prefetch), jetstream.PullExpiry(3*time.Second), jetstream.PullHeartbeat(time.Second))
	if err != nil {
		return err
	}
	<-ctx.Done()
	cc.Stop()
	<-cc.Closed()
	c.nc.Flush()
	return failed
}

// freePorts asks the system for ports that nobody uses.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
