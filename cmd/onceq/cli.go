package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
)

// cli is every command.
type cli struct {
	globals
	ShowVersion kong.VersionFlag `name:"version" help:"Show the version, as  onceq version  does."`

	Demo demoCmd `cmd:"" group:"start" help:"Three nodes, numbered messages, kill -9 on the leader: and the books must balance."`
	Dev  devCmd  `cmd:"" group:"start" help:"Run a local cluster of three processes that keeps its data."`

	Pub     pubCmd     `cmd:"" group:"use" help:"Publish messages."`
	Sub     subCmd     `cmd:"" group:"use" help:"Consume messages and write them to standard output."`
	Receive receiveCmd `cmd:"" group:"use" help:"Take messages that are ready, ack them, and end."`
	Queue   queueCmd   `cmd:"" group:"use" help:"Create, list, change, pause, look into, redrive, purge and delete queues."`
	Message messageCmd `cmd:"" group:"use" help:"Show, delete, requeue, release or move single messages."`
	Trace   traceCmd   `cmd:"" group:"use" help:"Tell the life of one message, as far as it is kept."`
	Session sessionCmd `cmd:"" group:"use" help:"List, show and end the sessions of producers."`
	Outcome outcomeCmd `cmd:"" group:"use" help:"Look up, or settle for good, what became of a publish."`
	Outbox  outboxCmd  `cmd:"" group:"use" help:"Look into the outbox file of a program that does not run, and decide about what is held."`

	Server  serverCmd  `cmd:"" group:"operate" help:"Run one node."`
	Status  statusCmd  `cmd:"" group:"operate" help:"Show the nodes, who leads, and what may fail."`
	Node    nodeCmd    `cmd:"" group:"operate" help:"Check, or empty, the data directory of a stopped node."`
	Cluster clusterCmd `cmd:"" group:"operate" help:"List, add and remove members, hand leadership over."`
	Backup  backupCmd  `cmd:"" group:"operate" help:"Write a backup of a running cluster, or check one."`
	Restore restoreCmd `cmd:"" group:"operate" help:"Put a backup into a new cluster."`
	Bench   benchCmd   `cmd:"" group:"operate" help:"Measure rates and latencies."`

	Context contextCmd `cmd:"" group:"other" help:"Choose which cluster the other commands talk to."`
	Errors  errorsCmd  `cmd:"" group:"other" help:"Explain an error code."`
	Version versionCmd `cmd:"" group:"other" help:"Show the version."`
}

var helpGroups = []kong.Group{
	{Key: "start", Title: "Start here"},
	{Key: "use", Title: "Queues and messages"},
	{Key: "operate", Title: "Nodes and clusters"},
	{Key: "other", Title: "Other"},
}

// flagHelp tells the default of a flag as well where a placeholder stands in its place.
func flagHelp(v *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(v)
	if !hidesDefault(v) {
		return help
	}
	return strings.TrimSuffix(help, ".") + "; default " + v.Default + "."
}

func hidesDefault(v *kong.Value) bool {
	return v.Flag != nil && v.Flag.PlaceHolder != "" && v.HasDefault && !strings.Contains(v.Help, "efault")
}

// globals are the flags of every command that talks to a cluster.
type globals struct {
	URL         string        `name:"url" help:"Nodes to talk to: HOST:PORT,... Over the context." env:"ONCEQ_URL" placeholder:"HOST:PORT,..."`
	ContextName string        `name:"context" help:"Named cluster to talk to, see 'onceq context'." env:"ONCEQ_CONTEXT" placeholder:"NAME"`
	Timeout     time.Duration `help:"How long to try. Publishing and consuming are not bound by it." default:"10s" env:"ONCEQ_TIMEOUT"`
}

// within bounds what --timeout bounds, and says so when it ends that.
func (g *globals) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, g.Timeout, fmt.Errorf("no answer within %s (--timeout)", g.Timeout))
}

// outputFlag is for commands that show data.
type outputFlag struct {
	Output string `short:"o" help:"How to write data: table, json or jsonl (an object a line)." enum:"table,json,jsonl" default:"table"`
}

func (o outputFlag) format() console.Output { return console.Output(o.Output) }
func (o outputFlag) table() bool            { return o.format() == console.Table }

// app is what each command gets.
type app struct{ *console.Console }

// admin connects and runs f, within the time-out.
func (a *app) admin(ctx context.Context, g *globals, f func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := g.within(ctx)
	defer cancel()
	c, err := a.dial(ctx, g)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}
