package watermill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/jepsen/proc"
)

// bound is how long anything that must happen may take.
const bound = time.Minute

// restartEnv holds the socket on which the test's process is asked, by the command
// that the suite runs, to kill the leader and start it again.
const restartEnv = "ONCEQ_TEST_RESTART_SOCKET"

// processes are three nodes of their own, which can be killed.
type processes struct {
	*proc.Cluster
	url string
}

// startProcesses builds the binary and starts three nodes, which end with the test.
func startProcesses(t *testing.T) *processes {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "onceq")
	if err := (proc.Build{Out: binary}).Run(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	c, err := proc.New(proc.Config{Binary: binary, Dir: dir, Nodes: 3, OnEnd: func(e proc.End) {
		t.Errorf("node %s ended by itself: %s\n%s", e.Node, e.How, e.Log)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	p := &processes{Cluster: c}
	var addresses []string
	for _, name := range c.Names() {
		if err := c.Start(name); err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, c.Address(name))
	}
	p.url = strings.Join(addresses, ",")
	return p
}

// client dials the cluster, once it is there.
func (p *processes) client(t *testing.T) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	for {
		c, err := client.Dial(ctx, p.url)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("no cluster: %v", err)
		}
	}
}

// restartLeader kills the node that leads, as kill -9 does, and starts it again.
func (p *processes) restartLeader(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for {
		members, err := c.Admin().Members(ctx)
		if err == nil && members.Leader != "" {
			return errors.Join(p.Kill(members.Leader), p.Start(members.Leader))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no leader to kill: %w", errors.Join(err, ctx.Err()))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serveRestarts does what the command asks for, until the test ends.
func (p *processes) serveRestarts(t *testing.T, c *client.Client) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "restart")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(restartEnv, socket)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			if err := p.restartLeader(c); err != nil {
				t.Error(err)
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

// askForRestart is the command: it returns when the leader was restarted.
func askForRestart(socket string) {
	nc, err := net.Dial("unix", socket)
	if err == nil {
		_, _ = nc.Read(make([]byte, 1)) // ends when it is done
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
