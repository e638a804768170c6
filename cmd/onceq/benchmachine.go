package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
)

type benchMachineCmd struct {
	outputFlag
	Time  time.Duration `help:"How long the machine is watched; an interrupt ends it before." default:"10s"`
	After time.Duration `help:"Leave out what is before." hidden:"" default:"0s"`
	Lent  bool          `help:"End with standard input." hidden:""`
	Smoke bool          `help:"A moment: is everything still in working order?"`
}

// Help says what is measured.
func (*benchMachineCmd) Help() string {
	return `Watches for how long this machine stands still: a thread that goes before all others
sleeps a millisecond at a time, and notes by how much it wakes up too late. The host
of a virtual machine that shares its processors may stop it for ten milliseconds many
times a second, more often the more it has to do, and then no latency in it can be
below. Run it beside a load; "onceq bench pub" and "e2e" do so by themselves and tell
it beside theirs.

STOLEN is the part of the processors' time that the host gave to others. It takes Linux
and root (or CAP_SYS_NICE).

Examples:
  onceq bench machine --time 30s
  onceq bench machine -o json`
}

// Run measures.
func (b *benchMachineCmd) Run(ctx context.Context, a *app) error {
	cfg := bench.MachineConfig{After: b.After, Time: b.Time}
	if b.Smoke {
		cfg.Time = 100 * time.Millisecond
	}
	until, stop := context.WithCancel(ctx)
	defer stop()
	if b.Lent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, there is nobody left to watch for
			stop()
		}()
	}
	begun := func() {
		if b.Lent {
			a.Note(watching)
		}
	}
	row, err := bench.Machine(until, cfg, begun)
	if err != nil {
		return err
	}
	if !b.table() {
		return console.WriteList(a.Out, b.format(), []bench.MachineRow{row})
	}
	g := console.NewGrid(">WATCHED", ">P50", ">P99", ">P99.9", ">MAX", ">STOLEN")
	g.Row(fmt.Sprintf("%.1f s", row.Seconds), millis(row.P50), millis(row.P99), millis(row.P999), millis(row.Max), percent(row.Stolen))
	_, err = g.WriteTo(a.Out)
	return err
}

func percent(of1 float64) string { return fmt.Sprintf("%.1f%%", of1*100) }

// watching is what a watcher that was lent says when it has begun.
const watching = "watching this machine"

// watchMachine watches the machine, in a process of its own, from after on. stop ends
// that and tells what was seen. bench.ErrMachine says that it cannot.
func watchMachine(ctx context.Context, after time.Duration) (stop func() (bench.MachineRow, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// A day is more than any load is measured.
	cmd := exec.CommandContext(ctx, self, "bench", "machine", "--lent", "--after", after.String(), "--time", "24h", "-o", "json")
	var out bytes.Buffer
	cmd.Stdout = &out
	lifeline, err := cmd.StdinPipe() // ends with this process, however that ends
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said := bufio.NewReader(stderr)
	first, _ := said.ReadString('\n')
	end := func() error {
		lifeline.Close()
		rest, _ := io.ReadAll(said)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s%s(%w)", bench.ErrMachine, first, rest, err)
		}
		return nil
	}
	if strings.TrimSpace(first) != watching {
		return nil, errors.Join(bench.ErrMachine, end())
	}
	return func() (bench.MachineRow, error) {
		var rows []bench.MachineRow
		if err := end(); err != nil {
			return bench.MachineRow{}, err
		}
		if err := json.Unmarshal(out.Bytes(), &rows); err != nil || len(rows) != 1 {
			return bench.MachineRow{}, fmt.Errorf("%w: its watcher said %q", bench.ErrMachine, out.String())
		}
		return rows[0], nil
	}, nil
}
