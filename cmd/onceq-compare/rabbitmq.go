package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitBin is where Debian's package has the programs.
const rabbitBin = "/usr/lib/rabbitmq/bin"

var errNoRabbit = errors.New("RabbitMQ is not installed: apt-get install rabbitmq-server, or leave it out with --systems")

// rabbitSystem is RabbitMQ with quorum queues, which fsync before they confirm.
type rabbitSystem struct{ version string }

func newRabbit(ctx context.Context) (*rabbitSystem, error) {
	if _, err := os.Stat(rabbitBin + "/rabbitmq-server"); err != nil {
		return nil, errNoRabbit
	}
	version := "RabbitMQ"
	if out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server").Output(); err == nil {
		v, _, _ := strings.Cut(string(out), "-")
		version += " " + v
	}
	return &rabbitSystem{version}, nil
}

func (s *rabbitSystem) Name() string    { return "rabbitmq" }
func (s *rabbitSystem) Version() string { return s.version + ", quorum queue" }
func (s *rabbitSystem) Durable() bool   { return true }
func (s *rabbitSystem) Peer() bool      { return true }
func (s *rabbitSystem) Does(work) bool  { return true }

func (s *rabbitSystem) Start(ctx context.Context, dir string) (cluster, error) {
	ports, err := freePorts(2*nodes + 1)
	if err != nil {
		return nil, err
	}
	c := &rabbitCluster{leaders: map[string]int{}}
	epmd := ports[2*nodes]
	files := map[string]string{"plugins": "[].", ".erlang.cookie": "onceqcompare"}
	for i := range nodes {
		conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\ncluster_formation.peer_discovery_backend = classic_config\n"+
			"cluster_formation.randomized_startup_delay_range.min = 0\ncluster_formation.randomized_startup_delay_range.max = 1\n", ports[i])
		for j := range nodes {
			conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = compare%d@localhost\n", j+1, j)
		}
		files[fmt.Sprintf("n%d.conf", i)] = conf
		c.urls = append(c.urls, fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", ports[i]))
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
			return nil, err
		}
	}
	shared := []string{"HOME=" + dir, "ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprintf("ERL_EPMD_PORT=%d", epmd), "LANG=C.UTF-8"}
	names, err := startProcess(filepath.Join(dir, "epmd.log"), shared, "epmd", "-address", "127.0.0.1", "-port", strconv.Itoa(epmd))
	if err != nil {
		return nil, fmt.Errorf("erlang's name server: %w", err)
	}
	c.others = append(c.others, names)
	for i := range nodes {
		env := append(shared[:len(shared):len(shared)],
			fmt.Sprintf("RABBITMQ_NODENAME=compare%d@localhost", i), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[nodes+i]),
			fmt.Sprintf("RABBITMQ_MNESIA_BASE=%s/mnesia%d", dir, i), fmt.Sprintf("RABBITMQ_LOG_BASE=%s/log%d", dir, i),
			fmt.Sprintf("RABBITMQ_CONFIG_FILE=%s/n%d.conf", dir, i), fmt.Sprintf("RABBITMQ_ENABLED_PLUGINS_FILE=%s/plugins", dir),
			"RABBITMQ_CONF_ENV_FILE=/dev/null", fmt.Sprintf("RABBITMQ_PID_FILE=%s", c.pidFile(dir, i)),
			fmt.Sprintf("RABBITMQ_FEATURE_FLAGS_FILE=%s/ff%d", dir, i),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}")
		p, err := startProcess(filepath.Join(dir, fmt.Sprintf("n%d.out", i)), env, rabbitBin+"/rabbitmq-server")
		if err != nil {
			c.Close()
			return nil, err
		}
		c.others = append(c.others, p)
		// The first makes the cluster that the others join.
		if err := until(ctx, fmt.Sprintf("RabbitMQ's node %d", i), func() error { return c.ready(dir, i) }); err != nil {
			c.Close()
			return nil, err
		}
	}
	err = until(ctx, "a RabbitMQ cluster", func() error {
		if err := c.Create(ctx, "ready", 0); err != nil {
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

func (c *rabbitCluster) pidFile(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("n%d.pid", i))
}

// ready waits for a node's listener and notes its process id.
func (c *rabbitCluster) ready(dir string, i int) error {
	conn, err := amqp.Dial(c.urls[i])
	if err != nil {
		return err
	}
	conn.Close()
	b, err := os.ReadFile(c.pidFile(dir, i))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil {
		c.pids = append(c.pids, pid)
	}
	return err
}

type rabbitCluster struct {
	others  []*process // epmd, and the scripts that started the nodes
	pids    []int
	urls    []string
	mu      sync.Mutex
	leaders map[string]int // a queue is led by the node that it was declared at
	next    int
}

// dial connects to a node, or to the next one that answers.
func (c *rabbitCluster) dial(node int) (conn *amqp.Connection, ch *amqp.Channel, err error) {
	for i := range nodes {
		if conn, err = amqp.Dial(c.urls[(node+i)%nodes]); err != nil {
			continue
		}
		if ch, err = conn.Channel(); err == nil {
			return conn, ch, nil
		}
		conn.Close()
	}
	return nil, nil, err
}

func (c *rabbitCluster) Create(_ context.Context, queue string, _ int) error {
	c.mu.Lock()
	node := c.next % nodes
	c.next++
	c.leaders[queue] = node
	c.mu.Unlock()
	conn, ch, err := c.dial(node)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum",
		"x-quorum-initial-group-size": nodes, "x-queue-leader-locator": "client-local"})
	return err
}

func (c *rabbitCluster) Delete(_ context.Context, queue string) error {
	conn, ch, err := c.dial(0)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = ch.QueueDelete(queue, false, false, false)
	return err
}

func (c *rabbitCluster) Leader(_ context.Context, queue string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaders[queue], nil
}

func (c *rabbitCluster) Pids() []int { return c.pids }

func (c *rabbitCluster) Kill(node int) error { return syscall.Kill(c.pids[node], syscall.SIGKILL) }

func (c *rabbitCluster) Close() {
	for _, p := range c.others {
		p.kill()
	}
}

// rabbitProducer dials again by itself: the library does not.
type rabbitProducer struct {
	c    *rabbitCluster
	q    string
	node int
	conn *amqp.Connection
	ch   *amqp.Channel
}

func (c *rabbitCluster) Producer(ctx context.Context, queue string, _ int) (producer, error) {
	node, err := c.Leader(ctx, queue)
	if err != nil {
		return nil, err
	}
	p := &rabbitProducer{c: c, q: queue, node: node}
	return p, p.connect()
}

func (p *rabbitProducer) connect() (err error) {
	p.Close()
	if p.conn, p.ch, err = p.c.dial(p.node); err != nil {
		return err
	}
	return p.ch.Confirm(false)
}

func (p *rabbitProducer) Publish(id string, body []byte) (confirmation, error) {
	if p.ch == nil || p.ch.IsClosed() {
		if err := p.connect(); err != nil {
			return nil, err
		}
	}
	d, err := p.ch.PublishWithDeferredConfirm("", p.q, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: id, Body: body})
	return rabbitConfirmation{p.ch, d}, err
}

func (p *rabbitProducer) Close() {
	if p.conn != nil {
		p.conn.Close()
	}
}

type rabbitConfirmation struct {
	ch *amqp.Channel
	d  *amqp.DeferredConfirmation
}

func (r rabbitConfirmation) Wait(timeout time.Duration) error {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	ok, err := r.d.WaitContext(ctx)
	if err != nil {
		return errTimeout
	}
	if !ok { // a channel that was opened while its queue had no leader may go on saying no: a new one does not
		r.ch.Close()
		return errors.New("rabbitmq: refused, or the connection was lost")
	}
	return nil
}

type rabbitConsumer struct {
	c        *rabbitCluster
	q        string
	node     int
	prefetch int
}

func (c *rabbitCluster) Consumer(ctx context.Context, queue string, prefetch int) (consumer, error) {
	node, err := c.Leader(ctx, queue)
	return &rabbitConsumer{c, queue, node, prefetch}, err
}

func (c *rabbitConsumer) Run(ctx context.Context, handle func([]byte)) error {
	for ctx.Err() == nil {
		if err := c.session(ctx, handle); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// session consumes over one connection.
func (c *rabbitConsumer) session(ctx context.Context, handle func([]byte)) error {
	conn, ch, err := c.c.dial(c.node)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := ch.Qos(c.prefetch, 0, false); err != nil {
		return err
	}
	in, err := ch.Consume(c.q, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return errors.New("rabbitmq: connection lost")
			}
			handle(m.Body)
			if err := ch.Ack(m.DeliveryTag, false); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}
