package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/contexts"
	"onceq/cmd/onceq/internal/control"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
)

type devCmd struct {
	Run    devRunCmd    `cmd:"" default:"withargs" help:"Run the cluster until it is interrupted."`
	Status devStatusCmd `cmd:"" help:"Show the processes."`
	Kill   devVerbCmd   `cmd:"" help:"End a node with kill -9."`
	Stop   devVerbCmd   `cmd:"" help:"End a node in order: it hands over first."`
	Start  devVerbCmd   `cmd:"" help:"Start a node again."`
	Pause  devVerbCmd   `cmd:"" help:"Freeze a node's process (SIGSTOP)."`
	Resume devVerbCmd   `cmd:"" help:"Let a paused node go on."`
}

// Help shows a first session.
func (*devCmd) Help() string {
	return `Three processes on this machine. Data is kept in ./.onceq; ports are chosen once
and kept: 7450, 7550 and 7650, free ones if one of these is taken. The context
"dev" is selected, so the other commands find the cluster. Not for production:
no TLS, no tokens, one machine.

In one terminal:
  onceq dev
In another:
  onceq pub hello hi
  onceq sub hello
  onceq dev kill leader
  onceq dev start n1`
}

// devDir is where a local cluster keeps everything unless told otherwise.
const devDir = ".onceq"

type devRunCmd struct {
	Data      string `help:"Directory of the cluster. Default: ./.onceq." env:"ONCEQ_DEV_DATA" placeholder:"DIR"`
	Port      int    `help:"Port of the first node; node i has 100*i more. Taken is an error." placeholder:"PORT"`
	Nodes     int    `help:"How many nodes, for a new cluster." placeholder:"N"`
	Ephemeral bool   `help:"Use a temporary directory and remove it at the end."`
	LogLevel  string `help:"What the nodes log to their files." enum:"debug,info,warn,error" default:"info"`
	LogStore  string `help:"Where the raft log is kept: wal or boltdb." enum:"wal,boltdb" default:"wal"`
}

// Bounds of the time that a local cluster takes.
const (
	devReadyTimeout = 60 * time.Second
	devStopTimeout  = 10 * time.Second
)

// Run runs the cluster until ctx ends.
func (d *devRunCmd) Run(ctx context.Context, a *app) error {
	began := time.Now()
	if d.Nodes < 0 || d.Nodes > nodesMax {
		return exit.Errorf(exit.Usage, "--nodes %d: from 1 to %d", d.Nodes, nodesMax)
	}
	if d.Ephemeral {
		dir, err := os.MkdirTemp("", "onceq-dev-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		d.Data = dir
	}
	if d.Data == "" {
		d.Data = devDir
	}
	abs, err := filepath.Abs(d.Data) // what is told to other processes must not depend on where they run
	if err != nil {
		return err
	}
	d.Data = abs
	c, err := devcluster.Open(devcluster.Config{
		Dir: d.Data, Nodes: d.Nodes, Port: d.Port,
		ServerArgs: []string{"--log-level", d.LogLevel, "--log-store", d.LogStore},
		OnEnd: func(n devcluster.Info, log string) {
			a.Note("%s ended by itself: %s\n  %s\n  whole log: %s   start it again: onceq dev start %s",
				n.Name, n.Detail, strings.ReplaceAll(log, "\n", "\n  "), n.Log, n.Name)
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), devStopTimeout)
		defer cancel()
		c.Close(stopping)
	}()
	leader, err := d.start(ctx, c)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	server, err := control.Listen(d.Data, func(ctx context.Context, r control.Request) (control.Reply, error) {
		return devControl(ctx, a, c, r)
	})
	if err != nil {
		return err
	}
	defer server.Close()
	selected, handBack := a.selectDev(c.URL(), c.Dir())
	defer handBack()
	d.banner(a, c, leader, selected, time.Since(began))
	<-ctx.Done()
	a.Note("stopping")
	return nil
}

// nodesMax is how many nodes a local cluster may have.
const nodesMax = 9

func (d *devRunCmd) start(ctx context.Context, c *devcluster.Cluster) (leader string, err error) {
	if err := c.StartAll(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, devReadyTimeout, fmt.Errorf("after %s; see the logs in %s", devReadyTimeout, d.Data))
	defer cancel()
	leader, err = c.WaitReady(ctx)
	if err != nil {
		return "", err
	}
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq dev"))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	_, err = cl.Admin().CreateQueue(ctx, "hello", client.QueueSettings{})
	if errors.Is(err, client.ErrConflict) {
		err = nil // the user has made it with settings of their own
	}
	return leader, err
}

// selectDev writes and selects the context "dev". Without it everything works
// with --url, so it is not worth an end. The cluster in another directory that had
// the context is found again after handBack, if it still runs.
func (a *app) selectDev(url, dir string) (selected bool, handBack func()) {
	var before contexts.Context
	path, err := contexts.Path(a.Getenv)
	if err == nil {
		err = contexts.Update(path, func(f *contexts.File) error {
			before = f.Contexts["dev"]
			f.Contexts["dev"] = contexts.Context{URL: url, Data: dir}
			f.Selected = "dev"
			return nil
		})
	}
	if err != nil {
		a.Note("the context \"dev\" could not be written: %s", err)
		return false, func() {}
	}
	return true, func() {
		if before.Data == dir || before.URL == "" || answers(before.URL) == "" {
			return
		}
		err := contexts.Update(path, func(f *contexts.File) error {
			if f.Contexts["dev"].Data == dir { // nobody has taken it since
				f.Contexts["dev"] = before
			}
			return nil
		})
		if err != nil {
			a.Note("the context \"dev\" could not be written: %s", err)
		}
	}
}

func (d *devRunCmd) banner(a *app, c *devcluster.Cluster, leader string, selected bool, took time.Duration) {
	data := d.Data
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, d.Data); err == nil && !strings.HasPrefix(rel, "..") {
			data = "./" + rel
		}
	}
	nodes := c.Nodes()
	head := fmt.Sprintf("onceq %s local cluster: %d nodes", version(), len(nodes))
	a.Note("%-46s  data %s", head, data)
	var line []string
	for i, n := range nodes {
		role, addr := "follower", n.Address
		if n.Name == leader {
			role = "LEADER"
		}
		if i > 0 {
			addr = addr[strings.LastIndexByte(addr, ':'):]
		}
		line = append(line, fmt.Sprintf("%s %s %s", n.Name, role, addr))
	}
	a.Note("  %s", strings.Join(line, "   "))
	context := `"dev" selected`
	if !selected {
		context = "none: use --url " + c.URL()
	} else if u := a.Getenv("ONCEQ_URL"); u != "" {
		context += ", but ONCEQ_URL is set and goes first"
	}
	a.Note("  context     %-32s  not for production: no TLS, no tokens", context)
	a.Note("ready in %.1f s. Try: onceq pub hello hi   onceq sub hello   onceq dev kill leader", took.Seconds())
}

// leaderTimeout bounds the search for the leader that a verb is meant for. It ends
// before askTimeout does, so that it is told what was missing.
const leaderTimeout = 20 * time.Second

// devControl answers what `onceq dev VERB` asks from another terminal.
func devControl(ctx context.Context, a *app, c *devcluster.Cluster, r control.Request) (control.Reply, error) {
	if r.Verb == "status" {
		data, err := json.Marshal(c.Nodes())
		return control.Reply{Data: data}, err
	}
	node := r.Arg
	if node == "leader" {
		asking, cancel := context.WithTimeout(ctx, leaderTimeout)
		defer cancel()
		leader, err := c.Leader(asking)
		if err != nil {
			return control.Reply{}, fmt.Errorf("who leads: %w", err)
		}
		node = leader
	}
	var err error
	var did string
	switch r.Verb {
	case "kill":
		err, did = c.Kill(node), "killed (kill -9)"
	case "stop":
		stopping, cancel := context.WithTimeout(ctx, devStopTimeout)
		defer cancel()
		err, did = c.Stop(stopping, node), "stopped"
	case "start":
		err, did = c.Start(node), "started"
	case "pause":
		err, did = c.Pause(node), "paused"
	case "resume":
		err, did = c.Resume(node), "resumed"
	default:
		err = exit.Errorf(exit.Usage, "no verb %q", r.Verb)
	}
	if err != nil {
		return control.Reply{}, err
	}
	text := node + " " + did
	if r.Arg == "leader" {
		text += ", it was the leader"
	}
	if lost := noMajority(c.Nodes()); lost != "" && r.Verb != "start" && r.Verb != "resume" {
		text += "\n  " + lost
	}
	a.Note("%s", text)
	return control.Reply{Text: text}, nil
}

// noMajority says what is wrong with too few nodes that run, and what to do; "" when
// there are enough.
func noMajority(nodes []devcluster.Info) string {
	running, do := 0, ""
	for _, n := range nodes {
		switch {
		case n.State == devcluster.Running:
			running++
		case do != "":
		case n.State == devcluster.Paused:
			do = "onceq dev resume " + n.Name
		default:
			do = "onceq dev start " + n.Name
		}
	}
	if running > len(nodes)/2 {
		return ""
	}
	return fmt.Sprintf("no majority is left (%d of %d nodes run): nothing is confirmed until, for example,  %s", running, len(nodes), do)
}

// devTarget finds the running local cluster: the directory that is named, else
// ./.onceq, else that of the context "dev".
type devTarget struct {
	Data string `help:"Directory of the cluster. Default: ./.onceq, else that of the context dev." env:"ONCEQ_DEV_DATA" placeholder:"DIR"`
}

func (t devTarget) dir(a *app) string {
	if t.Data != "" {
		return t.Data
	}
	if _, err := os.Stat(filepath.Join(devDir, "control.sock")); err == nil {
		return devDir
	}
	if path, err := contexts.Path(a.Getenv); err == nil {
		if f, err := contexts.Load(path); err == nil && f.Contexts["dev"].Data != "" {
			return f.Contexts["dev"].Data
		}
	}
	return devDir
}

// askTimeout bounds a request to the process that runs the local cluster.
const askTimeout = 30 * time.Second

type devVerbCmd struct {
	devTarget
	Node string `arg:"" help:"Node, such as n1, or 'leader'."`
}

// Run asks the process that runs the cluster. The verb is the command's name.
func (d *devVerbCmd) Run(ctx context.Context, a *app, k *kong.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := control.Ask(ctx, d.dir(a), control.Request{Verb: k.Selected().Name, Arg: d.Node})
	if err != nil {
		return err
	}
	a.Note("%s", reply.Text)
	return nil
}

type devStatusCmd struct {
	devTarget
	outputFlag
}

// Run shows the processes of the local cluster.
func (d *devStatusCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := control.Ask(ctx, d.dir(a), control.Request{Verb: "status"})
	if err != nil {
		return err
	}
	var nodes []devcluster.Info
	if err := json.Unmarshal(reply.Data, &nodes); err != nil {
		return fmt.Errorf("answer of the local cluster: %w", err)
	}
	if !d.table() {
		return console.WriteList(a.Out, d.format(), nodes)
	}
	g := console.NewGrid("NODE", "STATE", ">PID", "ADDRESS", "LOG", "DETAIL")
	for _, n := range nodes {
		pid := ""
		if n.Pid != 0 {
			pid = fmt.Sprint(n.Pid)
		}
		g.Row(n.Name, n.State, pid, n.Address, n.Log, n.Detail)
	}
	_, err = g.WriteTo(a.Out)
	return err
}
