package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
)

// What happens while a load is measured.
const (
	TailCalm        = "calm"        // nothing
	TailSnapshot    = "snapshot"    // snapshots, behind each of which the log is cut
	TailCompaction  = "compaction"  // messages that do not fit in memory are written and purged
	TailSlow        = "slow"        // a follower stands still half of the time
	TailCatchUp     = "catch-up"    // a follower that was away comes back
	TailTransfer    = "transfer"    // the same, and what it lacks is not in the log any more
	TailSlowDisk    = "slow-disk"   // each fsync of the leader takes longer
	TailConnections = "connections" // a thousand clients connect
	TailQueues      = "queues"      // ten thousand queues, a hundred of them in use
	TailLarge       = "large"       // bodies of a mebibyte in another queue
)

// Tails are all of them; the calm one is measured first and is what the others are compared with.
var Tails = []string{TailCalm, TailSnapshot, TailCompaction, TailSlow, TailCatchUp, TailTransfer, TailSlowDisk, TailConnections, TailQueues, TailLarge}

// TailsConfig says what is measured.
type TailsConfig struct {
	Events []string // none: all of Tails; the calm one comes in any case
	Time   time.Duration
	WarmUp time.Duration
	Rate   float64 // messages a second
	Size   int     // bytes of a body
	Seed   uint64

	Connections, Queues, Active int // of the events of these names
	Behind                      int // messages that the follower has missed that comes back

	// Smoke is whether it matters only that everything works: what does not happen in
	// so short a time is no error.
	Smoke bool
}

// Validate refuses nonsense before anything starts.
func (c TailsConfig) Validate() error {
	for _, e := range c.Events {
		if !slices.Contains(Tails, e) {
			return exit.Errorf(exit.Usage, "--event %s: one of %v", e, Tails)
		}
	}
	switch {
	case c.Connections < 1 || c.Connections > int(growthMax[GrowConnections]):
		return exit.Errorf(exit.Usage, "--connections %d: from 1 to %d", c.Connections, growthMax[GrowConnections])
	case c.Queues < 1 || c.Queues > int(growthMax[GrowQueues]):
		return exit.Errorf(exit.Usage, "--queues %d: from 1 to %d", c.Queues, growthMax[GrowQueues])
	case c.Active < 1 || c.Active > c.Queues:
		return exit.Errorf(exit.Usage, "--active %d: from 1 to the %d of --queues", c.Active, c.Queues)
	case c.Behind < 1 || c.Behind > backlogMax:
		return exit.Errorf(exit.Usage, "--behind %d: from 1 to %d", c.Behind, backlogMax)
	}
	return c.load().Validate()
}

func (c TailsConfig) load() Config {
	return Config{Workload: "e2e", Loads: []string{LoadPaced}, Sizes: []int{c.Size}, Time: c.Time, WarmUp: c.WarmUp, Rate: c.Rate,
		Producers: 1, Consumers: 2, InFlight: 1024, Seed: c.Seed}
}

func (c TailsConfig) events() []string {
	events := []string{TailCalm}
	for _, e := range Tails[1:] {
		if len(c.Events) == 0 || slices.Contains(c.Events, e) {
			events = append(events, e)
		}
	}
	return events
}

// Stage is a cluster of three of our own to which things can happen.
type Stage struct {
	Target
	End    func()
	Leader func(ctx context.Context) (leader string, followers []string, err error)
	// Whole waits until all nodes are up and have applied the same.
	Whole                      func(ctx context.Context) error
	Kill, Start, Pause, Resume func(node string) error
	// SlowDisk has each fsync of a node take longer, until undo; nil where that cannot be done.
	SlowDisk func(ctx context.Context, node string, by time.Duration) (undo func(), err error)
}

// TailRow is a load during which something happened.
type TailRow struct {
	Event string `json:"event"`
	// Happened says how much of it, as was seen.
	Happened string `json:"happened"`
	// Ratio is the 99.9th percentile to that of the calm load of the same run.
	Ratio float64 `json:"ratio_p999"`
	Row
}

// ErrUnavailable is what an event returns that cannot be made to happen here.
var ErrUnavailable = errors.New("not possible here")

// TailArgs are the server's arguments that make an event happen by itself.
var TailArgs = map[string][]string{
	TailSnapshot:   {"--log-bytes", "32MiB"},
	TailCompaction: {"--body-memory", "1MiB"},
	TailTransfer:   {"--log-bytes", "8MiB"},
}

// MeasureTails measures the load during each event. open starts a cluster with those arguments, a new one for each event.
func MeasureTails(ctx context.Context, cfg TailsConfig, open func(ctx context.Context, args ...string) (Stage, error), show func(TailRow)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	var calm TailRow
	for _, event := range cfg.events() {
		row, err := tail(ctx, cfg, event, open)
		if errors.Is(err, ErrUnavailable) {
			show(TailRow{Event: event, Happened: err.Error()})
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", event, err)
		}
		if event == TailCalm {
			calm = row
		}
		row.Ratio = row.P999 / calm.P999
		show(row)
	}
	return nil
}

func tail(ctx context.Context, cfg TailsConfig, event string, open func(ctx context.Context, args ...string) (Stage, error)) (TailRow, error) {
	s, err := open(ctx, TailArgs[event]...)
	if err != nil {
		return TailRow{}, err
	}
	defer s.End()
	s.Say("%s", event)
	c, err := client.Dial(ctx, s.URL, client.WithLabel("onceq bench tails"))
	if err != nil {
		return TailRow{}, err
	}
	defer c.Close()
	x := &happening{cfg: cfg, s: s, c: c}
	defer x.close()
	if err := x.prepare(ctx, event); err != nil {
		return TailRow{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	happening, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() {
		if pause(happening, cfg.WarmUp) {
			if err := x.happen(happening, event); err != nil && happening.Err() == nil {
				cancel(err)
			}
		}
	})
	row, err := measure(ctx, cfg.load(), s.Target, cfg.Size, loadsOf(cfg.load())[0])
	end()
	wg.Wait()
	if err != nil {
		return TailRow{}, errors.Join(err, context.Cause(ctx))
	}
	happened, err := x.happened(ctx, event)
	return TailRow{Event: event, Happened: happened, Row: row}, err
}

// happening is an event on its stage.
type happening struct {
	cfg  TailsConfig
	s    Stage
	c    *client.Client
	node string // that it happens to
	from sights // before

	mu      sync.Mutex // guards clients
	clients []*client.Client
	count   atomic.Uint64 // how often it has happened
}

func (x *happening) close() {
	for _, c := range x.clients {
		c.Close()
	}
}

const tailQueue = "bench-tail"

// prepare makes what is there before the load.
func (x *happening) prepare(ctx context.Context, event string) error {
	leader, followers, err := x.s.Leader(ctx)
	if err != nil {
		return err
	}
	x.node = followers[0]
	switch event {
	case TailSnapshot:
		x.node = leader
	case TailSlowDisk:
		x.node = leader
		if x.s.SlowDisk == nil {
			return fmt.Errorf("%w: strace makes a disk slow", ErrUnavailable)
		}
	case TailCatchUp, TailTransfer:
		if err := x.s.Kill(x.node); err != nil {
			return err
		}
		return x.fill(ctx, x.cfg.Behind)
	case TailQueues:
		err = x.queues(ctx, x.cfg.Queues)
	case TailCompaction:
		err = x.queues(ctx, purgedQueues)
	case TailLarge:
		_, err = x.c.Admin().CreateQueue(ctx, tailQueue, client.QueueSettings{})
	}
	if err == nil {
		x.from, err = x.see(ctx)
	}
	return err
}

// queues creates n.
func (x *happening) queues(ctx context.Context, n int) error {
	return each(ctx, 0, uint64(n), func(ctx context.Context, i uint64) error {
		_, err := x.c.Admin().CreateQueue(ctx, numbered(int(i)), client.QueueSettings{})
		return err
	})
}

func numbered(i int) string { return fmt.Sprintf("%s-%d", tailQueue, i) }

// fill publishes n messages that nobody receives.
func (x *happening) fill(ctx context.Context, n int) error {
	if _, err := x.c.Admin().CreateQueue(ctx, tailQueue, client.QueueSettings{}); err != nil {
		return err
	}
	cfg := BacklogConfig{Size: x.cfg.Size, Producers: 2, InFlight: 1024, Seed: x.cfg.Seed}
	return (&backlog{cfg: cfg, t: BacklogTarget{Target: x.s.Target}}).fill(ctx, tailQueue, 0, uint64(n))
}

// slowFor is how long a slow follower stands still, and how long it goes on in between;
// slowDiskBy is what an fsync takes longer on a slow disk.
const slowFor, slowDiskBy = 50 * time.Millisecond, 20 * time.Millisecond

// The loads beside the one that is measured: messages a second of each queue in use, and of large ones.
// And what is written and purged beside it: of several queues, since tables of one
// queue's messages do not overlap, and then nothing has to be compacted.
const (
	activeRate                           = 5
	largeRate, largeBytes                = 4, 1 << 20
	purgedQueues                         = 4
	purgedRate, purgedBytes, purgedEvery = 40, 128 << 10, time.Second // of each
)

// happen makes it happen until ctx ends.
func (x *happening) happen(ctx context.Context, event string) error {
	switch event {
	case TailSlow:
		for ctx.Err() == nil {
			if err := x.s.Pause(x.node); err != nil {
				return err
			}
			pause(ctx, slowFor)
			if err := x.s.Resume(x.node); err != nil {
				return err
			}
			x.count.Add(1)
			pause(ctx, slowFor)
		}
	case TailCatchUp, TailTransfer:
		return x.s.Start(x.node)
	case TailSlowDisk:
		undo, err := x.s.SlowDisk(ctx, x.node, slowDiskBy)
		if err != nil {
			return err
		}
		<-ctx.Done()
		undo()
	case TailCompaction:
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		wg.Go(func() {
			for i := 0; pause(ctx, purgedEvery); i++ {
				x.c.Admin().PurgeQueue(ctx, numbered(i%purgedQueues)) // one that fails is made up for by the next
			}
		})
		all := newBodies(purgedBytes, x.cfg.Seed)
		for i := range purgedQueues {
			wg.Go(func() {
				err := x.publish(ctx, numbered(i), purgedRate, all.share(x.cfg.Seed+uint64(i)), float64(i)/purgedQueues)
				if err != nil && ctx.Err() == nil {
					cancel(err)
				}
			})
		}
		<-ctx.Done()
		return context.Cause(ctx)
	case TailConnections:
		return each(ctx, 0, uint64(x.cfg.Connections), func(ctx context.Context, _ uint64) error {
			c, err := client.Dial(ctx, x.s.URL, client.WithLabel("onceq bench tails, idle"))
			if err != nil {
				return err
			}
			x.count.Add(1)
			x.mu.Lock()
			x.clients = append(x.clients, c)
			x.mu.Unlock()
			return nil
		})
	case TailQueues:
		return x.beside(ctx, x.cfg.Active, activeRate, x.cfg.Size, numbered)
	case TailLarge:
		return x.beside(ctx, 1, largeRate, largeBytes, func(int) string { return tailQueue })
	}
	return nil
}

// beside publishes to n queues and receives from them, at a rate each.
func (x *happening) beside(ctx context.Context, n int, rate float64, size int, queue func(i int) string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := newBodies(size, x.cfg.Seed)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := x.c.Consume(ctx, queue(i), func(context.Context, *client.Delivery) error { return nil }, client.WithPrefetch(16))
			if err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
		wg.Go(func() {
			if err := x.publish(ctx, queue(i), rate, all.share(x.cfg.Seed+uint64(i)), float64(i)/float64(n)); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// publish publishes at a rate, from a part of the time between two messages on.
func (x *happening) publish(ctx context.Context, queue string, rate float64, b *bodies, part float64) error {
	p, err := x.c.NewProducer(queue)
	if err != nil {
		return err
	}
	between := float64(time.Second) / rate
	if !pause(ctx, time.Duration(part*between)) {
		return nil
	}
	for n, began := uint64(0), time.Now(); pause(ctx, time.Until(dueAt(began, n, rate))); n++ {
		// It is not cut off by the end, whose fate would have to be found out.
		if _, err := p.Publish(context.WithoutCancel(ctx), client.Message{Body: b.next(n, 0)}); err != nil {
			return err
		}
		x.count.Add(1)
	}
	return nil
}

// sights are what nodes tell of events.
type sights struct {
	taken, received uint64 // snapshots of the node that it happens to
	compactions     uint64 // of all nodes
}

// see asks all nodes that are there.
func (x *happening) see(ctx context.Context) (s sights, err error) {
	reports, err := x.c.Admin().Nodes(ctx)
	if err != nil {
		return s, err
	}
	known := false
	for _, r := range reports {
		if r.Err != nil {
			return s, fmt.Errorf("%s: %w", r.Node, r.Err)
		}
		s.compactions += r.Status.BodyCompactions
		if r.Node == x.node {
			known = true
			s.taken, s.received = r.Status.SnapshotsTaken, r.Status.SnapshotsReceived
		}
	}
	if !known {
		err = fmt.Errorf("%s is not known", x.node)
	}
	return s, err
}

// happened says what was seen of the event; the error is that nothing was.
func (x *happening) happened(ctx context.Context, event string) (string, error) {
	n := x.count.Load()
	switch event {
	case TailCalm:
		return "", nil
	case TailSlow:
		return x.some(n, "%d pauses of %s", n, slowFor)
	case TailSlowDisk:
		return fmt.Sprintf("fsync takes %s longer", slowDiskBy), nil
	case TailConnections:
		return x.some(n, "%d connected", n)
	case TailQueues:
		return x.some(n, "%d of %d in use, %d messages", x.cfg.Active, x.cfg.Queues, n)
	case TailLarge:
		return x.some(n, "%d of 1 MiB", n)
	}
	began := time.Now()
	if event == TailCatchUp || event == TailTransfer {
		if err := x.s.Whole(ctx); err != nil {
			return "", err
		}
	}
	whole := time.Since(began).Seconds()
	now, err := x.see(ctx)
	if err != nil {
		return "", err
	}
	switch event {
	case TailSnapshot:
		return x.some(now.taken-x.from.taken, "%d snapshots of the leader", now.taken-x.from.taken)
	case TailCompaction:
		compactions := now.compactions - x.from.compactions
		return x.some(compactions, "%d compactions, %d MiB written and purged", compactions, n*purgedBytes>>20)
	case TailTransfer:
		return x.some(now.received, "%d behind, %d snapshots received, whole %.1f s after", x.cfg.Behind, now.received, whole)
	}
	if now.received > 0 {
		return "", fmt.Errorf("it was sent a snapshot: of %d messages that it was behind some were not in the log any more", x.cfg.Behind)
	}
	return fmt.Sprintf("%d behind, from the log, whole %.1f s after", x.cfg.Behind, whole), nil
}

// some is what happened, if it did.
func (x *happening) some(n uint64, format string, args ...any) (string, error) {
	if n == 0 && !x.cfg.Smoke {
		return "", fmt.Errorf("it did not happen in %s: a longer --time shows it", x.cfg.Time)
	}
	return fmt.Sprintf(format, args...), nil
}
