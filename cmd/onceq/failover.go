package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
)

type benchFailoverCmd struct {
	outputFlag
	Fault string `help:"What happens to the leader: kill (SIGKILL), stop (SIGTERM: it hands over), transfer (by command) or pause (SIGSTOP)." enum:"kill,stop,transfer,pause" default:"kill"`
	Runs  int    `help:"How often." default:"10" placeholder:"N"`
	Size  int    `help:"Bytes of a body." default:"1024" placeholder:"BYTES"`
	Seed  uint64 `help:"Seed of the bodies." default:"1"`

	HeartbeatTimeout time.Duration `help:"Of the nodes." default:"500ms"`
	ElectionTimeout  time.Duration `help:"Of the nodes." default:"500ms"`
}

// Help says what is measured.
func (*benchFailoverCmd) Help() string {
	return `Starts a three-node cluster of its own in a temporary directory, publishes one
message at a time, and takes the leader away. GAP is the longest time between two
confirmed publishes. Its parts are read from the nodes' logs, to the millisecond:

  DETECT      until another node knew that the leader's process has ended, or took
              its silence for that; nothing where the leader hands over
  ELECT       until that node, or another, was elected
  BARRIER     until the first entry of its term was applied
  RECONNECT   until the client was connected to it
  RETRANSMIT  until the publish that was under way was sent again and confirmed

COPIES is how many publishes were sent again.

Examples:
  onceq bench failover
  onceq bench failover --fault pause --runs 5
  onceq bench failover --fault transfer -o json`
}

// failoverRunsMax bounds a run of the command.
const failoverRunsMax = 10_000

// Run measures.
func (b *benchFailoverCmd) Run(ctx context.Context, a *app) error {
	if b.Runs < 1 || b.Runs > failoverRunsMax {
		return exit.Errorf(exit.Usage, "--runs %d: from 1 to %d", b.Runs, failoverRunsMax)
	}
	if err := (bench.Config{Sizes: []int{b.Size}, Time: 1, Rate: 1, Producers: 1, Consumers: 1, InFlight: 1}).Validate(); err != nil {
		return err
	}
	a.Note("starting a cluster of three nodes")
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	c, end, err := openBench(ctx, lost, a, 3, "--heartbeat-timeout", b.HeartbeatTimeout.String(), "--election-timeout", b.ElectionTimeout.String())
	if err != nil {
		return err
	}
	defer end(false)
	a.Note("onceq %s bench failover, %s of the leader, 3 processes on this machine, %d CPUs", version(), b.Fault, runtime.NumCPU())
	patient := bench.Patient{
		URL:    c.URL(),
		Strike: func(ctx context.Context, fault string) (string, time.Time, error) { return strike(ctx, c, fault) },
		Heal:   func(ctx context.Context, fault, node string) error { return heal(ctx, c, fault, node) },
		Events: func(since time.Time) ([]bench.Event, error) { return logged(c, since) },
		Say:    func(format string, args ...any) { a.Progress(format, args...) },
	}
	var rows []bench.FailoverRow
	err = bench.Failover(ctx, bench.FailoverConfig{Fault: b.Fault, Runs: b.Runs, Size: b.Size, Seed: b.Seed}, patient, func(r bench.FailoverRow) {
		rows = append(rows, r)
		if !a.Watched() {
			a.Note("%s of %s: %.0f ms", r.Fault, r.Leader, r.Gap)
		}
	})
	a.Done()
	if err != nil {
		return why(ctx, err)
	}
	return b.write(a, rows)
}

func (b *benchFailoverCmd) write(a *app, rows []bench.FailoverRow) error {
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid("RUN", "LEADER", "NEXT", ">GAP", ">DETECT", ">ELECT", ">BARRIER", ">RECONNECT", ">RETRANSMIT", ">COPIES")
	ms := func(f float64) string {
		if f == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f ms", f)
	}
	for _, r := range rows {
		g.Row(r.Run, r.Leader, r.Next, ms(r.Gap), ms(r.Detect), ms(r.Elect), ms(r.Barrier), ms(r.Reconnect), ms(r.Retransmit), r.Copies)
	}
	middle := func(column func(bench.FailoverRow) float64) string { return ms(bench.Median(rows, column)) }
	g.Row("median", "", "", middle(func(r bench.FailoverRow) float64 { return r.Gap }), middle(func(r bench.FailoverRow) float64 { return r.Detect }),
		middle(func(r bench.FailoverRow) float64 { return r.Elect }), middle(func(r bench.FailoverRow) float64 { return r.Barrier }),
		middle(func(r bench.FailoverRow) float64 { return r.Reconnect }), middle(func(r bench.FailoverRow) float64 { return r.Retransmit }), "")
	_, err := g.WriteTo(a.Out)
	return err
}

// strike takes the leader away.
func strike(ctx context.Context, c *devcluster.Cluster, fault string) (leader string, at time.Time, err error) {
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq bench failover"))
	if err != nil {
		return "", at, err
	}
	defer cl.Close()
	waiting, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	if leader, err = devcluster.WaitLeader(waiting, cl); err != nil {
		return "", at, err
	}
	at = time.Now()
	switch fault {
	case bench.FaultKill:
		err = c.Kill(leader)
	case bench.FaultPause:
		err = c.Pause(leader)
	case bench.FaultTransfer:
		return handOver(ctx, cl)
	case bench.FaultStop:
		err = c.Stop(ctx, leader)
	}
	return leader, at, err
}

// handOver asks for a transfer until one is not refused. Raft gives one up after an
// election time-out, and then the leader serves on; or an election has come first. In
// both cases there is nothing to measure. An answer may go down with the old leadership:
// what became of that one the logs tell.
func handOver(ctx context.Context, cl *client.Client) (leader string, at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for {
		if leader, err = devcluster.LeaderOf(ctx, cl); err == nil {
			at = time.Now()
			err = cl.Admin().TransferLeadership(ctx, "")
			if err == nil || errors.Is(err, client.ErrOutcomeUnknown) {
				return leader, at, nil
			}
		}
		select {
		case <-time.After(wholePoll):
		case <-ctx.Done():
			return leader, at, err
		}
	}
}

// heal brings the node back.
func heal(ctx context.Context, c *devcluster.Cluster, fault, node string) error {
	var err error
	switch fault {
	case bench.FaultKill, bench.FaultStop:
		err = c.Start(node)
	case bench.FaultPause:
		err = c.Resume(node)
	}
	if err != nil {
		return err
	}
	return whole(ctx, c)
}

const (
	wholePoll    = 100 * time.Millisecond
	wholeTimeout = 60 * time.Second
)

// whole waits until every node has applied what is committed now.
func whole(ctx context.Context, c *devcluster.Cluster) error {
	ctx, cancel := context.WithTimeoutCause(ctx, wholeTimeout, errors.New("the nodes have not caught up"))
	defer cancel()
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq bench failover"))
	if err != nil {
		return err
	}
	defer cl.Close()
	want := uint64(0)
	for {
		reports, err := cl.Admin().Nodes(ctx)
		if err == nil {
			level := len(reports) == len(c.Nodes())
			for _, r := range reports {
				if r.Err == nil && r.Status.Serving && want == 0 {
					want = r.Status.CommitIndex
				}
				level = level && r.Err == nil && want > 0 && r.Status.AppliedIndex >= want
			}
			if level {
				return nil
			}
		}
		select {
		case <-time.After(wholePoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// logged reads what the nodes have logged since.
func logged(c *devcluster.Cluster, since time.Time) ([]bench.Event, error) {
	var events []bench.Event
	for _, n := range c.Nodes() {
		b, err := os.ReadFile(n.Log)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Scan() {
			if e, ok := event(n.Name, lines.Text()); ok && !e.At.Before(since.Truncate(time.Millisecond)) {
				events = append(events, e)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// event reads a line such as
//
//	time=2006-01-02T15:04:05.000Z level=INFO msg="leading: serving clients" node=n1
func event(node, line string) (e bench.Event, ok bool) {
	rest, ok := strings.CutPrefix(line, "time=")
	if !ok {
		return e, false
	}
	at, rest, _ := strings.Cut(rest, " ")
	var err error
	if e.At, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return e, false
	}
	if _, rest, ok = strings.Cut(rest, `msg="`); !ok {
		return e, false
	}
	e.Text, _, ok = strings.Cut(rest, `"`)
	e.Node = node
	return e, ok
}
