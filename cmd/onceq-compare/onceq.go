package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"onceq/client"
	"onceq/jepsen/proc"
)

// onceqSystem is this project.
type onceqSystem struct {
	binary  string
	version string
}

// newOnceq builds the binary into dir, unless one is given.
func newOnceq(ctx context.Context, binary, dir string) (*onceqSystem, error) {
	if binary == "" {
		binary = filepath.Join(dir, "onceq")
		// In its own module: here, the peers' needs would choose its dependencies.
		root, err := moduleOf(ctx, "{{.Dir}}", "onceq")
		if err == nil {
			err = goBuild(ctx, root, binary, "./cmd/onceq")
		}
		if err != nil {
			return nil, err
		}
	}
	out, err := exec.CommandContext(ctx, binary, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s version: %w", binary, err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return &onceqSystem{binary, version}, nil
}

func (s *onceqSystem) Name() string { return "onceq" }
func (s *onceqSystem) Version() string {
	return s.version + ", its defaults (fsync before each confirmation)"
}
func (s *onceqSystem) Durable() bool  { return true }
func (s *onceqSystem) Peer() bool     { return false }
func (s *onceqSystem) Does(work) bool { return true }

func (s *onceqSystem) Start(ctx context.Context, dir string) (cluster, error) {
	nodes, err := proc.New(proc.Config{Binary: s.binary, Dir: dir, Nodes: nodes, Args: []string{"--log-level", "warn"}})
	if err != nil {
		return nil, err
	}
	c := &onceqCluster{nodes: nodes}
	var addresses []string
	for _, name := range nodes.Names() {
		if err := nodes.Start(name); err != nil {
			c.Close()
			return nil, err
		}
		addresses = append(addresses, nodes.Address(name))
	}
	c.url = strings.Join(addresses, ",")
	err = until(ctx, "an onceq cluster", func() (err error) {
		if c.admin == nil {
			if c.admin, err = client.Dial(ctx, c.url, client.WithLabel("onceq-compare")); err != nil {
				return err
			}
		}
		_, err = c.admin.Admin().Queues(ctx)
		return err
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

type onceqCluster struct {
	nodes *proc.Cluster
	url   string
	admin *client.Client
}

func (c *onceqCluster) Create(ctx context.Context, queue string, _ int) error {
	_, err := c.admin.Admin().CreateQueue(ctx, queue, client.QueueSettings{})
	return err
}

func (c *onceqCluster) Delete(ctx context.Context, queue string) error {
	_, err := c.admin.Admin().ForceDeleteQueue(ctx, queue)
	return err
}

// Leader waits while an election is under way.
func (c *onceqCluster) Leader(ctx context.Context, _ string) (leader int, err error) {
	err = until(ctx, "a leader of onceq", func() (err error) {
		leader, err = c.leads(ctx)
		return err
	})
	return leader, err
}

// leads is who says that it leads; else the error has what each node says.
func (c *onceqCluster) leads(ctx context.Context) (int, error) {
	reports, err := c.admin.Admin().Nodes(ctx)
	if err != nil {
		return 0, err
	}
	var said []string
	for _, r := range reports {
		if i := slices.Index(c.nodes.Names(), r.Node); i >= 0 && r.Err == nil && r.Status.Role == "leader" {
			return i, nil
		}
		said = append(said, fmt.Sprintf("%s: %s of term %d, %v", r.Node, r.Status.Role, r.Status.Term, r.Err))
	}
	return 0, fmt.Errorf("onceq: no node says that it leads (%s)", strings.Join(said, "; "))
}

func (c *onceqCluster) Pids() (pids []int) {
	for _, name := range c.nodes.Names() {
		pids = append(pids, c.nodes.Pid(name))
	}
	return pids
}

func (c *onceqCluster) Kill(node int) error { return c.nodes.Kill(c.nodes.Names()[node]) }

func (c *onceqCluster) Close() {
	if c.admin != nil {
		c.admin.Close()
	}
	c.nodes.Close()
}

type onceqProducer struct {
	c *client.Client
	p *client.Producer
}

func (c *onceqCluster) Producer(ctx context.Context, queue string, inFlight int) (producer, error) {
	cl, err := client.Dial(ctx, c.url)
	if err != nil {
		return nil, err
	}
	p, err := cl.NewProducer(queue, client.WithMaxInFlight(inFlight))
	if err != nil {
		cl.Close()
		return nil, err
	}
	return &onceqProducer{cl, p}, nil
}

// Publish leaves the id alone: the library numbers publishes by itself.
func (p *onceqProducer) Publish(_ string, body []byte) (confirmation, error) {
	return onceqConfirmation{p.p.PublishAsync(context.Background(), client.Message{Body: body})}, nil
}

func (p *onceqProducer) Close() { p.c.Close() }

type onceqConfirmation struct{ f *client.Future }

func (o onceqConfirmation) Wait(timeout time.Duration) error {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	_, err := o.f.Wait(ctx)
	return err
}

type onceqConsumer struct {
	c        *client.Client
	queue    string
	prefetch int
}

func (c *onceqCluster) Consumer(ctx context.Context, queue string, prefetch int) (consumer, error) {
	cl, err := client.Dial(ctx, c.url)
	return &onceqConsumer{cl, queue, prefetch}, err
}

func (c *onceqConsumer) Run(ctx context.Context, handle func([]byte)) error {
	defer c.c.Close()
	return c.c.Consume(ctx, c.queue, func(_ context.Context, d *client.Delivery) error {
		handle(d.Body())
		return nil
	}, client.WithPrefetch(c.prefetch))
}

// goBuild builds a package in a folder's module.
func goBuild(ctx context.Context, dir, out, pkg string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s(run this in the folder cmd/onceq-compare)", pkg, err, text)
	}
	return nil
}

// moduleOf tells something of a module that this one requires.
func moduleOf(ctx context.Context, what, path string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", what, path).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w (run this in the folder cmd/onceq-compare)", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}
