package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/latency"
)

// Row is the outcome of one load.
type Row struct {
	Workload      string  `json:"workload"`
	Load          string  `json:"load"`
	BodyBytes     int     `json:"body_bytes"`
	Messages      uint64  `json:"messages"`
	Seconds       float64 `json:"seconds"`
	PerSecond     float64 `json:"per_second"`
	P50           float64 `json:"p50_ms"`
	P99           float64 `json:"p99_ms"`
	P999          float64 `json:"p999_ms"`
	Max           float64 `json:"max_ms"`
	Retransmitted uint64  `json:"retransmitted"`
	Duplicates    uint64  `json:"duplicates"` // received twice; a finding
	Missing       uint64  `json:"missing"`    // not confirmed, or not received; a finding
	Terms         uint64  `json:"terms"`      // that began meanwhile: elections, which nobody asked for
	// What all nodes together spent on a message; 0 when they are not ours.
	CPUMicros float64 `json:"cpu_us_per_message,omitempty"`
	DiskBytes float64 `json:"disk_bytes_per_message,omitempty"` // that reached the device, of whoever wrote there
	// Machine is what the machine did meanwhile; nil when that was not watched.
	Machine *MachineRow `json:"machine,omitempty"`
}

// Clean says that each message was confirmed, and received once.
func (r Row) Clean() bool { return r.Duplicates == 0 && r.Missing == 0 }

// Target is the cluster to measure.
type Target struct {
	URL string
	// Spent reads what the nodes have spent so far; nil when they are not ours.
	Spent func() (Spent, error)
	// Watch watches the machine that the nodes run on, from after on, until stop is
	// called; nil when they are not ours. ErrMachine says that it cannot.
	Watch func(ctx context.Context, after time.Duration) (stop func() (MachineRow, error), err error)
	// Say shows progress.
	Say func(format string, args ...any)
}

// Run measures every load at every size. A row is shown as soon as it is there.
func Run(ctx context.Context, cfg Config, t Target, show func(Row)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	for _, size := range cfg.Sizes {
		for _, l := range loadsOf(cfg) {
			t.Say("%s, %d bytes, %s", cfg.Workload, size, l.name)
			row, err := measure(ctx, cfg, t, size, l)
			if err != nil {
				return fmt.Errorf("%s, %d bytes, %s: %w", cfg.Workload, size, l.name, err)
			}
			show(row)
		}
	}
	return nil
}

// The loads by the names that Config.Loads takes.
const (
	LoadSingle = "single"
	LoadPaced  = "paced"
	LoadFull   = "full"
)

// load is a way to put messages in.
type load struct {
	name      string
	producers int
	inFlight  int     // 1: one at a time
	rate      float64 // 0: as fast as inFlight allows
}

func loadsOf(cfg Config) []load {
	full := load{name: fmt.Sprintf("full speed, %d x %d under way", cfg.Producers, cfg.InFlight), producers: cfg.Producers, inFlight: cfg.InFlight}
	paced := load{name: fmt.Sprintf("paced, %g/s", cfg.Rate), producers: 1, inFlight: inFlightMax, rate: cfg.Rate}
	single := load{name: "one at a time", producers: 1, inFlight: 1}
	all := []struct {
		kind string
		load load
	}{{LoadSingle, single}, {LoadPaced, paced}, {LoadFull, full}}
	var chosen []load
	for _, l := range all {
		if len(cfg.Loads) == 0 || slices.Contains(cfg.Loads, l.kind) {
			chosen = append(chosen, l.load)
		}
	}
	return chosen
}

// measure runs one load on a queue of its own and removes the queue.
func measure(ctx context.Context, cfg Config, t Target, size int, l load) (Row, error) {
	row := Row{Workload: cfg.Workload, Load: l.name, BodyBytes: size}
	c, err := client.Dial(ctx, t.URL, client.WithLabel("onceq bench"))
	if err != nil {
		return row, err
	}
	defer c.Close()
	queue := fmt.Sprintf("bench-%s-%x", cfg.Workload, time.Now().UnixNano())
	if _, err := c.Admin().CreateQueue(ctx, queue, client.QueueSettings{}); err != nil {
		return row, err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		c.Admin().DeleteQueue(cleaning, queue) // a queue that stays behind harms nothing
	}()
	before, err := newestTerm(ctx, c)
	if err != nil {
		return row, err
	}
	p := &phase{cfg: cfg, load: l, url: t.URL, queue: queue, size: size, hist: latency.New()}
	if row, err = p.run(ctx, t, row); err != nil {
		return row, err
	}
	after, err := newestTerm(ctx, c)
	row.Terms = after - min(before, after) // a node that has the newest may not answer
	return row, err
}

// newestTerm is the newest term that a node knows of.
func newestTerm(ctx context.Context, c *client.Client) (term uint64, err error) {
	reports, err := c.Admin().Nodes(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range reports {
		if r.Err == nil {
			term = max(term, r.Status.Term)
		}
	}
	return term, nil
}

// Spent is what the nodes have spent since they started. What is not known
// stays 0.
type Spent struct {
	CPU  time.Duration
	Disk uint64
}

func (t Target) spent() (Spent, error) {
	if t.Spent == nil {
		return Spent{}, nil
	}
	return t.Spent()
}

func (t Target) watch(ctx context.Context, after time.Duration) (stop func() (MachineRow, error), err error) {
	if t.Watch == nil {
		return nil, ErrMachine
	}
	return t.Watch(ctx, after)
}
