package cluster_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/member"
)

// TestStart_WhatIsInTheWayIsSaidAndNothingIsLeftOpen: after a refused start the
// port is free and the directory unlocked.
func TestStart_WhatIsInTheWayIsSaidAndNothingIsLeftOpen(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Bound)
	defer cancel()
	listen := func(address string) net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := listen("127.0.0.1:0")
	n, err := cluster.Start(ctx, cluster.Config{Name: "n1", DataDir: dir, Listener: first, BootstrapExpect: 1})
	if err != nil {
		t.Fatal(err)
	}
	second := listen("127.0.0.1:0")
	if _, err := cluster.Start(ctx, cluster.Config{Name: "n1", DataDir: dir, Listener: second, BootstrapExpect: 1}); !errors.Is(err, member.ErrDirLocked) {
		t.Fatalf("a second node in one directory: %v", err)
	}
	listen(second.Addr().String()).Close()
	if _, err := cluster.Start(ctx, cluster.Config{Name: "n2", DataDir: t.TempDir(), Bind: n.Addr(), BootstrapExpect: 1}); err == nil {
		t.Fatal("a second node on one port")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatalf("closed again: %v", err)
	}
	if _, err := cluster.Start(ctx, cluster.Config{Name: "other", DataDir: dir, Bind: "127.0.0.1:0"}); !errors.Is(err, member.ErrOtherNode) {
		t.Fatalf("another node's directory: %v", err)
	}
	again, err := cluster.Start(ctx, cluster.Config{Name: "n1", DataDir: dir, Listener: listen(first.Addr().String())})
	if err != nil {
		t.Fatal(err)
	}
	again.Kill()
	<-again.Done()
}

// TestStart_EndsWithItsContext: a node that finds nobody gives up when it is
// told to.
func TestStart_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := cluster.Start(ctx, cluster.Config{Name: "n1", DataDir: t.TempDir(), Bind: "127.0.0.1:0", BootstrapExpect: 3})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
}

// TestStart_NonsenseIsRefused: with what would be right, before anything is made.
func TestStart_NonsenseIsRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*cluster.Config){
		"needs a data directory":         func(c *cluster.Config) { c.DataDir = "" },
		"bootstrap of -1 nodes, at most": func(c *cluster.Config) { c.BootstrapExpect = -1 },
		"there are wal and boltdb":       func(c *cluster.Config) { c.LogStore = "files" },
		"there are memory and disk":      func(c *cluster.Config) { c.Bodies = "tape" },
		"it needs at least 2097152":      func(c *cluster.Config) { c.LogBytes = cluster.LogBytesMin - 1 },
		"digest interval -1s":            func(c *cluster.Config) { c.DigestInterval = -time.Second },
		"of 5 bytes, it must have 32":    func(c *cluster.Config) { c.Secret = []byte("12345") },
		"bad node name":                  func(c *cluster.Config) { c.Name = "" },
	} {
		dir := t.TempDir()
		cfg := cluster.Config{Name: "n1", DataDir: dir, Bind: "127.0.0.1:0", BootstrapExpect: 1}
		change(&cfg)
		n, err := cluster.Start(t.Context(), cfg)
		if err == nil {
			_ = n.Close()
			t.Errorf("a node is started that should be refused: %s", want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, expected %q", err, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", want, left, err)
		}
	}
}
