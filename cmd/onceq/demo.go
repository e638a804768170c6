package main

import (
	"context"
	"math/rand/v2"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/demo"
	"onceq/cmd/onceq/internal/exit"
)

type demoCmd struct {
	outputFlag
	Messages  uint64   `help:"Messages to publish." default:"60000" placeholder:"N"`
	Rate      float64  `help:"Messages a second, 0 for as many as it takes." default:"3000" placeholder:"N"`
	Producers int      `help:"Producers." default:"4" placeholder:"N"`
	Consumers int      `help:"Consumers." default:"3" placeholder:"N"`
	Nodes     int      `help:"Nodes; a majority must be left after a kill." default:"3" placeholder:"N"`
	Kills     int      `help:"How often the leader is killed." default:"2" placeholder:"N"`
	Body      int      `help:"Bytes of a message." default:"100" placeholder:"N"`
	Seed      uint64   `help:"Seed of bodies and of what is given back. Default: random." placeholder:"N"`
	Keep      bool     `help:"Keep data and logs. They are kept anyway when the books do not balance."`
	ServerArg []string `hidden:"" sep:"none" help:"Another argument for each node."`
	LogLevel  string   `help:"What the nodes log to their files." enum:"debug,info,warn,error" default:"info"`
}

// Help says what it shows.
func (*demoCmd) Help() string {
	return `Starts three nodes as processes in a temporary directory, publishes numbered
messages, kills the leader with kill -9 twice while that goes on, brings the
killed nodes back, and consumes everything. Then it balances the books: each
number that was published against each delivery of it, against the counters of
the queue machine, and the digests of the three machines with each other.

Takes about half a minute. Exit code 0 when the books balance, 8 when not.

Examples:
  onceq demo
  onceq demo --messages 200000 --rate 0 --kills 5
  onceq demo --nodes 5 --producers 8 --consumers 8`
}

// Run runs the demo.
func (d *demoCmd) Run(ctx context.Context, a *app) error {
	if d.Seed == 0 {
		d.Seed = uint64(rand.Uint32()) + 1
	}
	res, err := demo.Run(ctx, demo.Config{
		Messages: d.Messages, Rate: d.Rate, Producers: d.Producers, Consumers: d.Consumers, Nodes: d.Nodes,
		Kills: d.Kills, BodyBytes: d.Body, Seed: d.Seed, Keep: d.Keep, LogLevel: d.LogLevel, ServerArgs: d.ServerArg,
	}, a.Console)
	if err != nil {
		return err
	}
	if d.table() {
		err = demo.Write(a.Out, a.Console, res)
	} else {
		err = console.WriteJSON(a.Out, d.format(), res)
	}
	if err == nil && !res.Balanced {
		err = &silent{exit.CheckFailed}
	}
	return err
}
