package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/latency"
)

// What a cluster may have more and more of.
const (
	GrowBacklog     = "backlog"     // messages that wait in the queue of the load
	GrowQueues      = "queues"      // that nobody uses
	GrowSessions    = "sessions"    // of producers that are idle
	GrowConsumers   = "consumers"   // which share the work of the load
	GrowConnections = "connections" // of clients that are idle
)

// Growths are all of them, in the order in which they are measured.
var Growths = []string{GrowBacklog, GrowQueues, GrowSessions, GrowConsumers, GrowConnections}

// GrowthConfig says what is measured.
type GrowthConfig struct {
	Of       []string            // which; none: all of Growths
	Sizes    map[string][]uint64 // how many of each, ascending
	Body     int                 // bytes of a body
	Window   time.Duration       // each size is measured Windows times for so long
	Windows  int
	WarmUp   time.Duration
	InFlight int // messages between publish and receipt
	Seed     uint64
}

// The most there may be of each in a run.
var growthMax = map[string]uint64{
	GrowBacklog: backlogMax, GrowQueues: 100_000, GrowSessions: 100_000, GrowConsumers: 10_000, GrowConnections: 10_000,
}

// Validate refuses nonsense before anything starts.
func (c GrowthConfig) Validate() error {
	for _, of := range c.growths() {
		if !slices.Contains(Growths, of) {
			return exit.Errorf(exit.Usage, "--of %s: one of %v", of, Growths)
		}
		last, sizes := uint64(0), c.Sizes[of]
		for _, n := range sizes {
			if n <= last || n > growthMax[of] {
				return exit.Errorf(exit.Usage, "--%s %d: ascending, at most %d", of, n, growthMax[of])
			}
			last = n
		}
		if len(sizes) == 0 {
			return exit.Errorf(exit.Usage, "no --%s", of)
		}
	}
	switch {
	case c.Body < bodyMin || c.Body > bodyMax:
		return exit.Errorf(exit.Usage, "--size %d: from %d to %d", c.Body, bodyMin, bodyMax)
	case c.Window <= 0 || c.Window > time.Hour:
		return exit.Errorf(exit.Usage, "--time %s: more than 0, at most 1h", c.Window)
	case c.InFlight < 1 || c.InFlight > inFlightMax:
		return exit.Errorf(exit.Usage, "--in-flight %d: from 1 to %d", c.InFlight, inFlightMax)
	}
	return nil
}

func (c GrowthConfig) growths() []string {
	if len(c.Of) == 0 {
		return Growths
	}
	return c.Of
}

// GrowthRow is the cost of a message while there are N of something: of its publish,
// delivery and ack, the median of the windows.
type GrowthRow struct {
	Of        string  `json:"of"`
	N         uint64  `json:"n"`
	Messages  uint64  `json:"messages"` // in all windows
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"publish_p50_ms"`
	CPUMicros float64 `json:"cpu_us_per_message"` // of all nodes; 0 where it is not known
	// Ratio is the CPU of a message to that with the smallest N of the same; where the
	// CPU is not known, the time.
	Ratio float64 `json:"ratio"`
}

// Growth measures what a message costs against how much of something there is. open
// starts a cluster, a new one for each kind of growth.
func Growth(ctx context.Context, cfg GrowthConfig, open func(ctx context.Context) (Target, func(), error), show func(GrowthRow)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	for _, of := range cfg.growths() {
		if err := grow(ctx, cfg, of, open, show); err != nil {
			return fmt.Errorf("%s: %w", of, err)
		}
	}
	return nil
}

func grow(ctx context.Context, cfg GrowthConfig, of string, open func(ctx context.Context) (Target, func(), error), show func(GrowthRow)) error {
	t, end, err := open(ctx)
	if err != nil {
		return err
	}
	defer end()
	c, err := client.Dial(ctx, t.URL, client.WithLabel("onceq bench growth"))
	if err != nil {
		return err
	}
	defer c.Close()
	g := &growth{cfg: cfg, t: t, c: c}
	defer g.close()
	for _, queue := range []string{growthQueue, growthIdle} {
		if _, err := c.Admin().CreateQueue(ctx, queue, client.QueueSettings{}); err != nil {
			return err
		}
	}
	var first GrowthRow
	for _, n := range cfg.Sizes[of] {
		t.Say("%s, %d", of, n)
		if err := g.to(ctx, of, n); err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
		row, err := g.measure(ctx, of, n)
		if err == nil && first.N == 0 && cfg.WarmUp > 0 {
			row, err = g.measure(ctx, of, n) // nodes that have just started are dearer: all others would look good
		}
		if err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
		if first.N == 0 {
			first = row
		}
		row.Ratio = growthRatio(row, first)
		show(row)
	}
	return nil
}

func growthRatio(row, first GrowthRow) float64 {
	if row.CPUMicros > 0 && first.CPUMicros > 0 {
		return row.CPUMicros / first.CPUMicros
	}
	return first.PerSecond / row.PerSecond
}

const growthQueue, growthIdle = "bench-growth", "bench-growth-idle"

// growth is a cluster that has more and more of something.
type growth struct {
	cfg GrowthConfig
	t   Target
	c   *client.Client
	has uint64 // of what grows

	mu      sync.Mutex // guards the fields below
	clients []*client.Client
}

func (g *growth) close() {
	for _, c := range g.clients {
		c.Close()
	}
}

// growersMax make what grows, at once.
const growersMax = 32

// to makes what is missing to n.
func (g *growth) to(ctx context.Context, of string, n uint64) error {
	from := g.has
	g.has = n
	switch of {
	case GrowBacklog:
		cfg := BacklogConfig{Size: g.cfg.Body, Producers: 4, InFlight: 1024, Seed: g.cfg.Seed}
		return (&backlog{cfg: cfg, t: BacklogTarget{Target: g.t}}).fill(ctx, growthQueue, from, n)
	case GrowQueues:
		return each(ctx, from, n, func(ctx context.Context, i uint64) error {
			_, err := g.c.Admin().CreateQueue(ctx, fmt.Sprintf("%s-%d", growthIdle, i), client.QueueSettings{})
			return err
		})
	case GrowSessions:
		return each(ctx, from, n, func(ctx context.Context, i uint64) error {
			p, err := g.c.NewProducer(growthIdle)
			if err != nil {
				return err
			}
			_, err = p.Publish(ctx, client.Message{Body: []byte("opens the session")})
			return err
		})
	case GrowConnections:
		return each(ctx, from, n, func(ctx context.Context, i uint64) error {
			c, err := client.Dial(ctx, g.t.URL, client.WithLabel("onceq bench growth, idle"))
			if err == nil {
				g.mu.Lock()
				g.clients = append(g.clients, c)
				g.mu.Unlock()
			}
			return err
		})
	}
	return nil // consumers come with the load
}

// each calls f for from to n-1, some at once, and returns the first error.
func each(ctx context.Context, from, n uint64, f func(ctx context.Context, i uint64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	next.Store(from)
	var wg sync.WaitGroup
	for range growersMax {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < n && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// circle is a load that leaves the backlog as it is: a message is received for each
// that was confirmed, and the next is published for each that was received.
type circle struct {
	slots    chan struct{} // taken for a publish, given back by a receipt
	tokens   chan struct{} // given by a confirmation, taken by a receipt
	received atomic.Uint64
	hist     *latency.Histogram // of publishes
}

// measure runs the load and reads what it costs, window by window.
func (g *growth) measure(ctx context.Context, of string, n uint64) (GrowthRow, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &circle{slots: make(chan struct{}, g.cfg.InFlight), tokens: make(chan struct{}, g.cfg.InFlight), hist: latency.New()}
	consumers := uint64(2)
	if of == GrowConsumers {
		consumers = n
	}
	consuming, stop := context.WithCancel(ctx)
	defer stop()
	var consume, produce sync.WaitGroup
	for range consumers {
		consume.Go(func() {
			if err := l.consume(consuming, g.c, max(prefetchLeast, prefetchAll/int(consumers))); err != nil {
				cancel(err)
			}
		})
	}
	publishing, enough := context.WithCancel(ctx)
	defer enough()
	for i := range uint64(2) {
		produce.Go(func() {
			if err := l.produce(ctx, publishing, g.c, newBodies(g.cfg.Body, g.cfg.Seed+i), g.cfg.InFlight); err != nil {
				cancel(err)
			}
		})
	}
	row, err := g.watch(ctx, l)
	enough()
	produce.Wait()
	stop()
	consume.Wait()
	row.Of, row.N = of, n
	row.P50 = l.hist.Millis(50)
	return row, errors.Join(err, context.Cause(ctx))
}

// watch reads window by window.
func (g *growth) watch(ctx context.Context, l *circle) (row GrowthRow, err error) {
	pause(ctx, g.cfg.WarmUp)
	var costs, rates []float64
	for range g.cfg.Windows {
		before, err := g.t.spent()
		if err != nil {
			return row, err
		}
		began, had := time.Now(), l.received.Load()
		// A slow machine is measured by one message rather than by none.
		for pause(ctx, g.cfg.Window) && l.received.Load() == had {
		}
		if ctx.Err() != nil {
			return row, context.Cause(ctx)
		}
		after, err := g.t.spent()
		if err != nil {
			return row, err
		}
		messages := l.received.Load() - had
		row.Messages += messages
		rates = append(rates, float64(messages)/time.Since(began).Seconds())
		costs = append(costs, float64((after.CPU-before.CPU)/time.Microsecond)/float64(messages))
	}
	row.PerSecond, row.CPUMicros = median(rates), median(costs)
	return row, nil
}

func median[T cmp.Ordered](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// produce publishes until until ends, and waits for the outcomes.
func (l *circle) produce(ctx, until context.Context, c *client.Client, b *bodies, inFlight int) error {
	p, err := c.NewProducer(growthQueue, client.WithMaxInFlight(inFlight))
	if err != nil {
		return err
	}
	type flight struct {
		at time.Time
		f  *client.Future
	}
	flights := make(chan flight, inFlight)
	failed := make(chan error, 1)
	go func() {
		var first error
		for x := range flights {
			if _, err := x.f.Wait(context.WithoutCancel(ctx)); err != nil { // ctx bounds the publish itself
				first = cmp.Or(first, err)
				continue
			}
			l.hist.Record(time.Since(x.at))
			l.tokens <- struct{}{} // there is room: as many as there are slots
		}
		failed <- first
	}()
	for n := uint64(0); ; n++ {
		select {
		case l.slots <- struct{}{}:
			flights <- flight{time.Now(), p.PublishAsync(ctx, client.Message{Body: b.next(n, 0)})}
			continue
		case <-until.Done():
		}
		break
	}
	close(flights)
	err = <-failed
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	p.Close(closing) // everything has its outcome
	return err
}

// What the consumers take in advance, all together and each at least: with one message
// each, a thousand of them would wait for one another's acks, and a batch would be what
// they have acked meanwhile.
const prefetchAll, prefetchLeast = 1024, 16

// consume receives and acks.
func (l *circle) consume(ctx context.Context, c *client.Client, prefetch int) error {
	err := c.Consume(ctx, growthQueue, func(handling context.Context, _ *client.Delivery) error {
		select {
		case <-l.tokens:
		case <-ctx.Done():
			return ctx.Err()
		case <-handling.Done():
			return context.Cause(handling)
		}
		<-l.slots
		l.received.Add(1)
		return nil
	}, client.WithPrefetch(prefetch))
	if ctx.Err() != nil {
		return nil
	}
	return err
}
