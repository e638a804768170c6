package main

import (
	"context"
	"fmt"
	"time"

	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
)

type benchDiskCmd struct {
	outputFlag
	Dir     string        `type:"path" help:"Directory on the disk. Default: the one for temporary files." placeholder:"DIR"`
	Size    []int         `help:"Bytes of an append; may be repeated." default:"4096,65536,524288" placeholder:"BYTES"`
	Writers []int         `help:"Files that are appended to at once: the nodes of a cluster on one machine share its disk; may be repeated." default:"1,3" placeholder:"N"`
	Time    time.Duration `help:"How long each is measured." default:"3s"`
	Smoke   bool          `help:"A second in all: is everything still in working order?"`
}

// Help says what is measured.
func (*benchDiskCmd) Help() string {
	return `Appends to files that have their length already, and makes each append durable
(fdatasync) before the next, as the log of a node does: a message cannot be
confirmed faster, and no more can be written in a second. A message alone is an
append of about 4 KiB, a batch at full speed one of 512 KiB; p50 and p99 are of the
write together with what makes it durable.

Examples:
  onceq bench disk
  onceq bench disk --dir /var/lib/onceq --writers 1 -o json`
}

// Run measures.
func (b *benchDiskCmd) Run(ctx context.Context, a *app) error {
	cfg := bench.DiskConfig{Dir: b.Dir, Sizes: b.Size, Writers: b.Writers, Time: b.Time}
	if b.Smoke {
		cfg.Time = 100 * time.Millisecond
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	var rows []bench.DiskRow
	err := bench.Disk(ctx, cfg, func(format string, args ...any) { a.Progress(format, args...) }, func(r bench.DiskRow) { rows = append(rows, r) })
	a.Done()
	if err != nil {
		return err
	}
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid(">APPEND", ">WRITERS", ">APPENDS", ">PER S", ">MIB/S", ">P50", ">P99", ">MAX")
	for _, r := range rows {
		g.Row(console.Bytes(uint64(r.Bytes)), r.Writers, console.Count(uint64(r.Appends)), console.Count(uint64(r.PerSecond)),
			fmt.Sprintf("%.0f", r.BytesPerSecond/(1<<20)), millis(r.P50), millis(r.P99), millis(r.Max))
	}
	_, err = g.WriteTo(a.Out)
	return err
}
