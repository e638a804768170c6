package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/ledger"
)

// run is one run.
type run struct {
	cfg     Config
	con     *console.Console
	began   time.Time
	cluster *devcluster.Cluster
	url     string
	gate    *gate

	// others counts the publishes that ended without being confirmed.
	published, confirmed, others, retransmitted, delivered, acked atomic.Uint64

	lastConfirm atomic.Int64 // unix ns
	gap         atomic.Int64 // longest time between two confirms since the nemesis reset it, ns
	stalled     atomic.Int64 // longest time for which this process did not run, ns
	saidRefused atomic.Bool
}

// Result is what a run came to.
type Result struct {
	*ledger.Report
	Balanced bool          `json:"balanced"`
	Dir      string        `json:"dir,omitempty"` // data and logs, kept when asked for or when the books do not balance
	Took     time.Duration `json:"took_ns"`
}

// Run does everything and audits it. An error means that there is nothing to
// audit; what went wrong within a run is in the report.
func Run(ctx context.Context, cfg Config, con *console.Console) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, con: con, began: time.Now()}
	con.Note("onceq demo: %s", cfg)
	c, end, err := devcluster.Temporary(ctx, devcluster.Config{
		Binary: cfg.Binary, Nodes: cfg.Nodes,
		ServerArgs: append([]string{"--log-level", cfg.LogLevel}, cfg.ServerArgs...),
		OnEnd: func(n devcluster.Info, log string) {
			r.event("%s ended by itself: %s\n  %s", n.Name, n.Detail, strings.ReplaceAll(log, "\n", "\n  "))
		},
	}, "onceq-demo-")
	if err != nil {
		return nil, err
	}
	keep := true
	defer func() { end(keep) }()
	r.cluster, r.url = c, c.URL()
	r.event("%d processes serve, in %s", cfg.Nodes, c.Dir())
	r.gate = newGate(r.share(min(2, cfg.Kills+1)))

	h, err := r.work(ctx)
	r.con.Done()
	if err != nil {
		keep = cfg.Keep
		return nil, err
	}
	report := ledger.Audit(h)
	res := &Result{Report: report, Balanced: report.Balanced(), Dir: c.Dir(), Took: time.Since(r.began)}
	keep = cfg.Keep || !res.Balanced
	if !keep {
		res.Dir = ""
	}
	return res, nil
}

// work runs everybody and gathers the history.
func (r *run) work(ctx context.Context) (ledger.History, error) {
	admin, err := client.Dial(ctx, r.url, client.WithLabel("demo"))
	if err != nil {
		return ledger.History{}, err
	}
	defer admin.Close()
	if _, err := admin.Admin().CreateQueue(ctx, queueName, client.QueueSettings{}); err != nil {
		return ledger.History{}, err
	}
	watching, unwatch := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() { r.watchStalls(watching) })
	watchers.Go(func() { r.progress(watching) })
	defer watchers.Wait()
	defer unwatch()

	// The first error of anybody ends everybody.
	working, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	consuming, enough := context.WithCancel(working)
	defer enough()
	start := func(wg *sync.WaitGroup, ctx context.Context, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				fail(err)
			}
		})
	}
	var ks []*consumer
	var consumers sync.WaitGroup
	for i := range r.cfg.Consumers {
		k := &consumer{r: r, n: i + 1}
		ks = append(ks, k)
		start(&consumers, consuming, k.run)
	}
	var ps []*producer
	var producers sync.WaitGroup
	r.lastConfirm.Store(time.Now().UnixNano())
	each, rest := r.cfg.Messages/uint64(r.cfg.Producers), r.cfg.Messages%uint64(r.cfg.Producers)
	for i := range r.cfg.Producers {
		p := &producer{r: r, n: uint32(i + 1), count: each}
		if uint64(i) < rest {
			p.count++
		}
		ps = append(ps, p)
		start(&producers, working, p.run)
	}
	start(&producers, working, r.nemesis)
	producers.Wait()

	h := ledger.History{NodesWanted: r.cfg.Nodes}
	if working.Err() == nil {
		r.event("everything is published; waiting for the consumers")
		if h.Unfinished, err = r.drain(working, admin); err != nil {
			fail(err)
		}
	}
	enough()
	consumers.Wait()
	if working.Err() != nil {
		return h, context.Cause(working)
	}
	for _, p := range ps {
		h.Publishes = append(h.Publishes, p.seen...)
	}
	for _, k := range ks {
		h.Deliveries = append(h.Deliveries, k.seen...)
	}
	h.Stalled = time.Duration(r.stalled.Load())
	return h, r.readBooks(ctx, admin, &h)
}

// drainPatience is how long nothing may happen to a queue that is not empty
// before the run is called unfinished: longer than a lease lasts.
const drainPatience = 60 * time.Second

// drain waits until the queue is empty. It returns why it is not, if it stays so.
func (r *run) drain(ctx context.Context, c *client.Client) (unfinished string, err error) {
	last, since := client.QueueCounts{}, time.Now()
	for {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		q, err := c.Admin().Queue(asking, queueName)
		cancel()
		n := q.Counts
		switch {
		case err == nil && n.Ready+n.Leased+n.Delayed == 0:
			return "", nil
		case err == nil && n != last:
			last, since = n, time.Now()
		case time.Since(since) > drainPatience && err != nil:
			return fmt.Sprintf("the queue could not be read for %s: %s", drainPatience, err), nil
		case time.Since(since) > drainPatience:
			return fmt.Sprintf("nothing moved for %s, with %d ready, %d leased and %d delayed", drainPatience, n.Ready, n.Leased, n.Delayed), nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return "", err
		}
	}
}

// booksTimeout bounds the reading of counters and digests at the end.
const booksTimeout = 60 * time.Second

// readBooks reads what the machines say: counters, and a digest of each at one
// index. Another digest entry may come in between; then all are asked again.
func (r *run) readBooks(ctx context.Context, c *client.Client, h *ledger.History) error {
	ctx, cancel := context.WithTimeoutCause(ctx, booksTimeout, fmt.Errorf("the nodes did not answer for %s", booksTimeout))
	defer cancel()
	q, err := c.Admin().Queue(ctx, queueName)
	if err != nil {
		return fmt.Errorf("read the counters: %w", err)
	}
	h.Counts = q.Counts
	if h.DigestIndex, h.Digest, err = c.Admin().Digest(ctx); err != nil {
		return fmt.Errorf("read the digest: %w", err)
	}
	for {
		var later bool
		if h.Nodes, later = digests(ctx, c, h.DigestIndex); len(h.Nodes) == r.cfg.Nodes {
			return nil
		}
		if later {
			if h.DigestIndex, h.Digest, err = c.Admin().Digest(ctx); err != nil {
				return fmt.Errorf("read the digest: %w", err)
			}
		}
		if err := sleep(ctx, pollEvery); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			return nil // the audit says how many are missing
		}
	}
}

// digests asks each node for its digest at index, and says whether one is past it.
func digests(ctx context.Context, c *client.Client, index uint64) (ds []ledger.Digest, later bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reports, err := c.Admin().Nodes(ctx)
	if err != nil {
		return nil, false
	}
	for _, n := range reports {
		switch {
		case n.Err != nil:
		case n.Status.DigestIndex == index:
			ds = append(ds, ledger.Digest{Node: n.Status.Node, Index: index, Digest: n.Status.Digest})
		case n.Status.DigestIndex > index:
			later = true
		}
	}
	return ds, later
}

// outcomes is how many publishes have ended, well or not.
func (r *run) outcomes() uint64 { return r.confirmed.Load() + r.others.Load() }

// confirm counts a confirmed publish and the pause before it.
func (r *run) confirm() {
	r.confirmed.Add(1)
	now := time.Now().UnixNano()
	pause := now - r.lastConfirm.Swap(now)
	for {
		longest := r.gap.Load()
		if pause <= longest || r.gap.CompareAndSwap(longest, pause) {
			return
		}
	}
}

// refused says once why publishes are refused; the ledger counts them.
func (r *run) refused(id ledger.ID, err error) {
	if r.saidRefused.CompareAndSwap(false, true) {
		r.event("%s was not stored: %s", id, err)
	}
}
