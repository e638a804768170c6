package jepsen

import (
	"fmt"
	"time"

	"onceq/jepsen/workload"
)

// Config is one run.
type Config struct {
	Workload string
	Faults   []string // names of nemesis.All, or "all", or "none"; with "mix" they come as nemesis.Mix says
	Seed     uint64
	Time     time.Duration // of traffic and faults; draining comes on top
	Nodes    int
	Rate     int    // publishes a second
	Binary   string // onceq
	Judge    string // an onceq that says what is wrong with a node's files; "": Binary
	// Older is an onceq that the nodes begin with when the run will upgrade them; built
	// there, or in Dir, if it is not there and needed: from the same sources, and
	// knowing only the first version of the machine.
	Older    string
	FaultFS  string // the faulty disk's binary; built there, or in Dir, if it is not there and needed
	Dir      string // for history, logs, data and report; made if absent, else empty
	KeepData bool   // keep the data directories of a run that was valid
	// ServerArgs are more arguments of onceq server, after those of the harness.
	ServerArgs []string
	// Progress is told about twice a second how it goes, Note of what is worth a
	// line. They may be nil.
	Progress func(Progress)
	Note     func(format string, args ...any)
	// Enough ends traffic and faults before Time is over: it is asked after each
	// Progress. It may be nil.
	Enough func(Progress) bool
}

// Progress is how a run goes.
type Progress struct {
	Phase                       string
	At                          time.Duration
	Published, Unknown, Refused int64
	Delivered, Acked, Lost      int64
	Leader                      string
	Fault                       string // under way
	Seen                        int    // faults whose effect was observed
}

// Defaults.
const (
	NodesDefault = 3
	RateDefault  = 600
	TimeDefault  = 30 * time.Second
	nodesMax     = 9
)

func (c *Config) withDefaults() {
	if c.Workload == "" {
		c.Workload = "queue"
	}
	if c.Nodes == 0 {
		c.Nodes = NodesDefault
	}
	if c.Rate == 0 {
		c.Rate = RateDefault
	}
	if c.Time == 0 {
		c.Time = TimeDefault
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	if c.Enough == nil {
		c.Enough = func(Progress) bool { return false }
	}
	if c.Note == nil {
		c.Note = func(string, ...any) {}
	}
}

// Check says what is wrong with a run, before anything is built for it.
func (c Config) Check() error {
	c.withDefaults()
	_, _, err := c.validate()
	return err
}

func (c *Config) validate() (w workload.Workload, p plan, err error) {
	w, ok := workload.Find(c.Workload)
	if !ok {
		return w, p, fmt.Errorf("no workload %q", c.Workload)
	}
	p, err = newPlan(c, w, here(c.Nodes))
	switch {
	case c.Nodes < 1 || c.Nodes > nodesMax:
		return w, p, fmt.Errorf("%d nodes: 1 to %d are accepted", c.Nodes, nodesMax)
	case c.Time < 0:
		return w, p, fmt.Errorf("a run of %v", c.Time)
	case c.Rate < 1 || c.Rate > 100_000:
		return w, p, fmt.Errorf("rate %d: 1 to 100,000 is accepted", c.Rate)
	}
	return w, p, err
}
