package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"onceq/cmd/onceq-compare/bare"
)

// bareSystem is no queue but what none can leave out: see package bare.
type bareSystem struct{ raft, wal string }

// bareNode is the command with which this program is a node of it.
const bareNode = "bare-node"

func newBare(ctx context.Context) (s *bareSystem, err error) {
	s = &bareSystem{}
	if s.raft, err = moduleOf(ctx, "{{.Version}}", "github.com/hashicorp/raft"); err == nil {
		s.wal, err = moduleOf(ctx, "{{.Version}}", "github.com/hashicorp/raft-wal")
	}
	return s, err
}

func (s *bareSystem) Name() string { return "bare" }
func (s *bareSystem) Version() string {
	return fmt.Sprintf("no queue: raft %s and raft-wal %s, fsync before each confirmation, and what is pushed and acked", s.raft, s.wal)
}
func (s *bareSystem) Durable() bool    { return true }
func (s *bareSystem) Peer() bool       { return false }
func (s *bareSystem) Does(w work) bool { return !w.kills }

func (s *bareSystem) Start(ctx context.Context, dir string) (cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	c := &bareCluster{}
	var peers []string
	for i := range nodes {
		c.addresses = append(c.addresses, fmt.Sprintf("127.0.0.1:%d", ports[i]))
		peers = append(peers, fmt.Sprintf("127.0.0.1:%d", ports[nodes+i]))
	}
	for i := range nodes {
		p, err := startProcess(filepath.Join(dir, fmt.Sprintf("n%d.log", i)), nil, self,
			bareNode, strconv.Itoa(os.Getpid()), strconv.Itoa(i), strings.Join(peers, ","), c.addresses[i], filepath.Join(dir, fmt.Sprintf("bare%d", i)))
		if err != nil {
			c.Close()
			return nil, err
		}
		c.procs = append(c.procs, p)
	}
	err = until(ctx, "a bare cluster", func() error {
		_, err := c.Leader(ctx, "")
		return err
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// beNode is the rest of this process when it was started as a node.
func beNode() {
	if len(os.Args) > 1 && os.Args[1] == bareNode {
		fmt.Fprintln(os.Stderr, runBareNode(os.Args[2:]))
		os.Exit(1)
	}
}

// runBareNode is this program as a node.
func runBareNode(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("%s PARENT NUMBER PEER,... ADDRESS DIR", bareNode)
	}
	parent, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(args[1])
	peers := strings.Split(args[2], ",")
	if err != nil || id < 0 || id >= len(peers) {
		return fmt.Errorf("node %q of %d", args[1], len(peers))
	}
	go func() { // it ends with whoever started it, however that ends
		for os.Getppid() == parent {
			time.Sleep(time.Second)
		}
		os.Exit(1)
	}()
	return bare.Run(bare.Config{ID: id, Raft: peers, Clients: args[3], Dir: args[4]})
}

type bareCluster struct {
	procs     []*process
	addresses []string
}

// Create has nothing to do: a queue is there when something is published to it.
func (c *bareCluster) Create(context.Context, string, int) error { return nil }
func (c *bareCluster) Pids() []int                               { return pidsOf(c.procs) }
func (c *bareCluster) Kill(node int) error                       { c.procs[node].kill(); return nil }

// Delete takes what is left out of the nodes' memory: the next work would look through it.
func (c *bareCluster) Delete(ctx context.Context, queue string) error {
	conn, err := bare.Dial(ctx, c.addresses)
	if err != nil {
		return err
	}
	p := bare.NewProducer(conn, queue)
	defer p.Close()
	return p.Wait(p.Delete(), answerBound)
}

func (c *bareCluster) Leader(ctx context.Context, _ string) (int, error) {
	conn, err := bare.Dial(ctx, c.addresses)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.Node, nil
}

func (c *bareCluster) Close() {
	for _, p := range c.procs {
		p.kill()
	}
}

type bareProducer struct{ p *bare.Producer }

func (c *bareCluster) Producer(ctx context.Context, queue string, _ int) (producer, error) {
	conn, err := bare.Dial(ctx, c.addresses)
	if err != nil {
		return nil, err
	}
	return bareProducer{bare.NewProducer(conn, queue)}, nil
}

func (p bareProducer) Publish(_ string, body []byte) (confirmation, error) {
	return bareConfirmation{p.p, p.p.Publish(body)}, nil
}

func (p bareProducer) Close() { p.p.Close() }

type bareConfirmation struct {
	p      *bare.Producer
	number uint64
}

func (c bareConfirmation) Wait(timeout time.Duration) error { return c.p.Wait(c.number, timeout) }

type bareConsumer struct {
	conn     *bare.Conn
	queue    string
	prefetch int
}

func (c *bareCluster) Consumer(ctx context.Context, queue string, prefetch int) (consumer, error) {
	conn, err := bare.Dial(ctx, c.addresses)
	return bareConsumer{conn, queue, prefetch}, err
}

func (c bareConsumer) Run(ctx context.Context, handle func([]byte)) error {
	return c.conn.Consume(ctx, c.queue, c.prefetch, handle)
}
