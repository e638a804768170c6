package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"onceq/client"
	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/procs"
)

type benchBacklogCmd struct {
	outputFlag
	Messages   []uint64 `help:"Messages of the backlog; may be repeated, ascending: each is a step with a restart." default:"1000000" placeholder:"N"`
	Size       int      `help:"Bytes of a body." default:"1024" placeholder:"BYTES"`
	Drain      uint64   `help:"Messages that are taken out, from disk and from memory." default:"100000" placeholder:"N"`
	Nodes      int      `help:"How many nodes." default:"3" placeholder:"N"`
	Producers  int      `help:"Producers." default:"4" placeholder:"N"`
	InFlight   int      `help:"Messages under way for each producer." default:"1024" placeholder:"N"`
	Seed       uint64   `help:"Seed of the bodies." default:"1"`
	BodyMemory size     `help:"Memory of each node for messages." default:"256MiB" placeholder:"SIZE"`
	Bodies     string   `help:"Where the nodes keep messages: disk or memory." enum:"disk,memory" default:"disk"`
	Smoke      bool     `help:"A few seconds in all: is everything still in working order?"`
}

// Help says what is measured.
func (*benchBacklogCmd) Help() string {
	return `Starts a cluster of its own in a temporary directory, which must have room for the
backlog on every node. Fills a queue, kills all nodes and starts them, and takes
messages out: from disk, and from another queue whose messages are still in
memory. Resident is the largest node's memory; stored is what is on disk, all nodes
together; disk is what reached the device for each message.

Examples:
  onceq bench backlog
  onceq bench backlog --nodes 1 --messages 1000000 --messages 5000000 --messages 10000000`
}

// backlogOverhead is what a message costs on disk beside its body, at most, and
// backlogSpare the share that compactions and the log may take beside it.
const backlogOverhead, backlogSpare = 100, 0.5

// Run measures.
func (b *benchBacklogCmd) Run(ctx context.Context, a *app) error {
	if b.Smoke {
		b.Messages, b.Drain, b.BodyMemory = []uint64{5000}, 2000, 1<<20
	}
	cfg := bench.BacklogConfig{Messages: b.Messages, Size: b.Size, Drain: b.Drain, Producers: b.Producers, InFlight: b.InFlight, Seed: b.Seed}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if b.Nodes < 1 || b.Nodes > nodesMax {
		return exit.Errorf(exit.Usage, "--nodes %d: from 1 to %d", b.Nodes, nodesMax)
	}
	if err := b.checkRoom(); err != nil {
		return err
	}
	a.Note("starting a cluster of %d", b.Nodes)
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	c, end, err := openBench(ctx, lost, a, b.Nodes, "--log-level", "warn", "--bodies", b.Bodies, "--body-memory", strconv.FormatUint(uint64(b.BodyMemory), 10))
	if err != nil {
		return err
	}
	defer end(false)
	a.Note("onceq %s bench backlog, %d processes on this machine, bodies in %s, %s of memory for them, %d CPUs, %s", version(), b.Nodes, b.Bodies,
		console.Bytes(uint64(b.BodyMemory)), runtime.NumCPU(), runtime.Version())
	t := bench.BacklogTarget{
		Target:   benchTarget(a, c),
		Resident: func() (uint64, error) { return largest(c) },
		Stored:   func() (uint64, error) { return storedBytes(c.Dir()) },
		Restart:  func(ctx context.Context) (time.Duration, error) { return restartAll(ctx, c) },
	}
	var rows []bench.BacklogRow
	err = bench.Backlog(ctx, cfg, t, func(r bench.BacklogRow) {
		rows = append(rows, r)
		if !a.Watched() {
			a.Note("%s: %.1f s, %.0f/s, %s resident", r.Step, r.Seconds, r.PerSecond, console.Bytes(r.Resident))
		}
	})
	a.Done()
	if err != nil {
		return why(ctx, err)
	}
	return b.write(a, rows)
}

// checkRoom refuses a backlog that would fill the disk.
func (b *benchBacklogCmd) checkRoom() error {
	var s unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &s); err != nil {
		return err
	}
	free := s.Bavail * uint64(s.Bsize)
	need := uint64(float64(b.Nodes)*float64(b.Messages[len(b.Messages)-1])*float64(b.Size+backlogOverhead)*(1+backlogSpare)) + uint64(b.Nodes)<<30
	if b.Smoke {
		need = uint64(b.Nodes) << 28
	}
	if free < need {
		return exit.Errorf(exit.Unavailable, "%s has %s free, and %s are needed: fewer --messages, fewer --nodes, or another TMPDIR", os.TempDir(), console.Bytes(free), console.Bytes(need))
	}
	return nil
}

// largest is the memory of the node that has most.
func largest(c *devcluster.Cluster) (most uint64, err error) {
	for _, n := range c.Nodes() {
		if n.Pid == 0 {
			continue
		}
		u, err := procs.UsageOf(n.Pid)
		if err != nil {
			return 0, err
		}
		most = max(most, u.Resident)
	}
	return most, nil
}

// storedBytes is what a directory takes on disk; links count once.
func storedBytes(dir string) (n uint64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if seen[uint64(st.Ino)] {
				return nil
			}
			seen[uint64(st.Ino)] = true
		}
		n += uint64(info.Size())
		return nil
	})
	return n, err
}

// restartAll kills all nodes and starts them again.
func restartAll(ctx context.Context, c *devcluster.Cluster) (time.Duration, error) {
	for _, n := range c.Nodes() {
		if err := c.Kill(n.Name); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := c.StartAll(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		err := caughtUp(ctx, c)
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("the nodes are not back: %w", err)
		}
	}
}

// caughtUp says what is missing until a node leads and all have applied what was
// committed.
func caughtUp(ctx context.Context, c *devcluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq bench"))
	if err != nil {
		return err
	}
	defer cl.Close()
	reports, err := cl.Admin().Nodes(ctx)
	if err != nil {
		return err
	}
	leads, commit := false, uint64(0)
	for _, r := range reports {
		if r.Err != nil {
			return r.Err
		}
		leads = leads || r.Status.Serving
		commit = max(commit, r.Status.CommitIndex)
	}
	if !leads || len(reports) < len(c.Nodes()) {
		return errors.New("no node leads")
	}
	for _, r := range reports {
		if r.Status.AppliedIndex < commit {
			return fmt.Errorf("%s has applied %d of %d entries", r.Node, r.Status.AppliedIndex, commit)
		}
	}
	return nil
}

func (b *benchBacklogCmd) write(a *app, rows []bench.BacklogRow) error {
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid("STEP", ">MESSAGES", ">BACKLOG", ">TIME", ">PER S", ">RESIDENT", ">STORED", ">DISK/MSG")
	for _, r := range rows {
		rate, disk := "", ""
		if r.Messages > 0 {
			rate, disk = console.Count(uint64(r.PerSecond)), console.Bytes(uint64(r.Written))
		}
		g.Row(r.Step, console.Count(r.Messages), console.Count(r.Backlog), fmt.Sprintf("%.1f s", r.Seconds), rate,
			console.Bytes(r.Resident), console.Bytes(r.Stored), disk)
	}
	_, err := g.WriteTo(a.Out)
	return err
}
