package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest/volume"
)

var (
	powerRounds = flag.Int("power.rounds", 3, "how often the power test cuts the power on each kind of disk, log store and bodies")
	powerOnly   = flag.String("power.only", "", "what of the power test to run, such as ext4-wal-memory or faulty-boltdb-disk; empty for all")
	powerSeed   = flag.Uint64("power.seed", 0, "what is cut when, and how it is torn; 0 for another one each time")
)

const (
	powerRoundsMax = 10 // on one cluster; more go to the next, since what is stored grows
	powerNodes     = 3
	powerProducers = 4
	powerInFlight  = 64
	powerQueue     = "stored" // nobody consumes from it until the end
	powerWork      = "work"   // consumed all the time
)

// powered is a cluster of processes, each on a disk of its own.
type powered struct {
	t      *testing.T
	bin    string
	store  string
	bodies string
	disks  []powerDisk
	port   int // aPort's: node i has the ports port+100*i and the next
	nodes  []*process
}

// start starts some nodes, in this order.
func (p *powered) start(nodes []int) {
	p.t.Helper()
	for _, i := range nodes {
		args := []string{"server", "--name", fmt.Sprintf("n%d", i+1), "--data-dir", p.disks[i].dir(),
			"--bind", p.address(i), "--gossip-bind", fmt.Sprintf("127.0.0.1:%d", p.port+100*i+1), "--gossip-fast",
			"--bootstrap-expect", fmt.Sprint(powerNodes), "--log-store", p.store, "--bodies", p.bodies, "--body-memory", "256KiB", "--disk-reserve", "1MiB",
			// Snapshots and truncations all the time, so that a cut finds some half done.
			"--snapshot-threshold", "100", "--snapshot-interval", "500ms"}
		for j := range powerNodes {
			if j != i {
				args = append(args, "--join", p.address(j))
			}
		}
		node, err := start(p.bin, args...)
		if err != nil {
			p.t.Fatal(err)
		}
		p.nodes[i] = node
	}
	for _, i := range nodes {
		if err := p.nodes[i].await("listening"); err != nil {
			p.t.Fatalf("n%d: %v", i+1, err)
		}
	}
}

func (p *powered) address(i int) string { return fmt.Sprintf("127.0.0.1:%d", p.port+100*i) }

func (p *powered) url() string {
	var as []string
	for i := range powerNodes {
		as = append(as, p.address(i))
	}
	return strings.Join(as, ",")
}

// cut cuts the power of some nodes at the same moment: their processes stand still,
// their disks forget what was not durable, and the processes end.
func (p *powered) cut(nodes []int, r *rand.Rand) {
	p.t.Helper()
	errs := make([]error, powerNodes)
	var wg sync.WaitGroup
	for _, i := range nodes {
		seed := r.Uint64()
		wg.Go(func() { errs[i] = errors.Join(volume.Freeze(p.nodes[i].cmd.Process), p.disks[i].cut(seed)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
	p.kill(nodes)
	for _, i := range nodes {
		p.disks[i].powerOn()
	}
}

func (p *powered) kill(nodes []int) {
	for _, i := range nodes {
		if n := p.nodes[i]; n != nil {
			n.cmd.Process.Kill()
			<-n.done
		}
	}
}

// book is what the test knows of the ids that it published.
type book struct {
	mu        sync.Mutex // guards the fields below
	tried     map[string]bool
	confirmed map[string]bool
	acked     map[string]bool // its ack was confirmed
	again     []string        // delivered after its ack was confirmed
}

// publish publishes until stop, always so many in flight, and waits for all
// answers: through power cuts, each message is sent again until it is known.
func (b *book) publish(ctx context.Context, c *client.Client, queue, who string, stop <-chan struct{}) error {
	p, err := c.NewProducer(queue, client.WithMaxInFlight(powerInFlight))
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	room := make(chan struct{}, powerInFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 1)
	for i := 0; ; i++ {
		select {
		case <-stop:
			wg.Wait()
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		case err := <-failed:
			return err
		case room <- struct{}{}:
		}
		id := fmt.Sprintf("%s-%d", who, i)
		body := id + " " + strings.Repeat("x", rand.IntN(2048))
		b.mu.Lock()
		b.tried[id] = true
		b.mu.Unlock()
		f := p.PublishAsync(ctx, client.Message{Body: []byte(body)})
		wg.Go(func() {
			_, err := f.Wait(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			if err == nil {
				b.confirmed[id] = true
			} else {
				select {
				case failed <- fmt.Errorf("publish %s: %w", id, err):
				default:
				}
			}
			<-room
		})
	}
}

// work consumes and acks until ctx ends.
func (b *book) work(ctx context.Context, c *client.Client) error {
	return c.Consume(ctx, powerWork, func(hctx context.Context, d *client.Delivery) error {
		id, _, _ := strings.Cut(string(d.Body()), " ")
		b.mu.Lock()
		if b.acked[id] {
			b.again = append(b.again, id)
		}
		b.mu.Unlock()
		if err := d.Ack(hctx); err == nil {
			b.mu.Lock()
			b.acked[id] = true
			b.mu.Unlock()
		}
		return nil
	}, client.WithManualSettle(), client.WithConcurrency(16))
}

// TestPowerCut_LosesNothingThatWasConfirmed cuts the power of the disks of all three
// nodes under load, or of one, again and again. Every confirmed message is stored
// once, and nothing comes again whose ack was confirmed.
func TestPowerCut_LosesNothingThatWasConfirmed(t *testing.T) {
	needBinary(t)
	t.Parallel()
	for _, c := range []struct{ disk, store, bodies string }{
		{"ext4", "wal", "memory"}, {"ext4", "wal", "disk"}, {"ext4", "boltdb", "disk"},
		{"faulty", "wal", "memory"}, {"faulty", "wal", "disk"}, {"faulty", "boltdb", "memory"}, {"faulty", "boltdb", "disk"},
	} {
		name := c.disk + "-" + c.store + "-" + c.bodies
		if *powerOnly != "" && *powerOnly != name {
			continue
		}
		for rest := *powerRounds; rest > 0; rest -= powerRoundsMax {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cutPower(t, c.disk, c.store, c.bodies, min(rest, powerRoundsMax))
			})
		}
	}
}

// powerAll is in how many of four rounds the power of all nodes is cut, and not
// that of one.
const powerAll = 3

func cutPower(t *testing.T, disk, store, bodies string, rounds int) {
	seed := *powerSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to decide alike: -power.only %s-%s-%s -power.seed %d", disk, store, bodies, seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := &powered{t: t, bin: needBinary(t), store: store, bodies: bodies, port: aPort(t), nodes: make([]*process, powerNodes)}
	all := []int{0, 1, 2}
	for range powerNodes {
		p.disks = append(p.disks, newPowerDisk(t, disk))
	}
	// Before the disks are unmounted, which is later in the same list.
	t.Cleanup(func() { p.kill(all) })
	p.start(all)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds+1)*bound)
	defer cancel()
	l := p.load(ctx, powerProducers)
	for round := range rounds {
		l.grow()
		// Anywhere between two fsyncs: waits for nothing.
		time.Sleep(time.Duration(r.Int64N(int64(700 * time.Millisecond))))
		nodes := append([]int(nil), all...)
		r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if round > 0 && r.IntN(4) >= powerAll {
			nodes = nodes[:1]
		}
		p.cut(nodes, r)
		confirmed, acked := l.counts()
		t.Logf("round %d: power cut of %d with %d confirmed, %d acked", round+1, len(nodes), confirmed, acked)
		p.start(nodes)
	}
	l.grow()
	l.end()
}

// load is what goes on while disks fail: producers into two queues, and a consumer
// of one of them.
type load struct {
	*book
	p         *powered
	ctx       context.Context // of the test
	c         *client.Client
	stop      chan struct{}
	published chan error
	endWork   context.CancelFunc
	worked    chan error
}

// load begins it. Producers take turns at the queues.
func (p *powered) load(ctx context.Context, producers int) *load {
	t := p.t
	t.Helper()
	c, err := client.Dial(ctx, p.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	queues := []string{powerQueue, powerWork}
	for _, q := range queues {
		if _, err := c.Admin().CreateQueue(ctx, q, client.QueueSettings{}); err != nil {
			t.Fatal(err)
		}
	}
	l := &load{
		book: &book{tried: map[string]bool{}, confirmed: map[string]bool{}, acked: map[string]bool{}},
		p:    p, ctx: ctx, c: c, stop: make(chan struct{}), published: make(chan error, producers), worked: make(chan error, 1),
	}
	for i := range producers {
		queue := queues[i%len(queues)]
		go func() { l.published <- l.publish(ctx, c, queue, fmt.Sprintf("%s.%d", queue, i), l.stop) }()
	}
	working, endWork := context.WithCancel(ctx)
	l.endWork = endWork
	go func() { l.worked <- l.work(working, c) }()
	return l
}

// grow waits until it is there, again.
func (l *load) grow() {
	l.p.t.Helper()
	l.book.grow(l.p.t, l.ctx, l.published)
}

// end stops it and audits what is stored.
func (l *load) end() {
	t := l.p.t
	t.Helper()
	close(l.stop)
	for range cap(l.published) {
		if err := <-l.published; err != nil {
			t.Fatal(err)
		}
	}
	l.audit(t, l.ctx, l.c)
	l.endWork()
	if err := <-l.worked; err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		for i, n := range l.p.nodes {
			t.Logf("n%d:\n%s", i+1, n.text())
		}
	}
}

func (b *book) counts() (confirmed, acked int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.confirmed), len(b.acked)
}

// grow waits until there is a load again: some hundred more were confirmed, and
// acked.
func (b *book) grow(t *testing.T, ctx context.Context, ended <-chan error) {
	t.Helper()
	confirmed, acked := b.counts()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		nowConfirmed, nowAcked := b.counts()
		if nowConfirmed >= confirmed+300 && nowAcked >= acked+100 {
			return
		}
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("a producer has ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("no load again: %d confirmed (%d before), %d acked (%d before)", nowConfirmed, confirmed, nowAcked, acked)
		}
	}
}

// audit compares what is stored with what was confirmed.
func (b *book) audit(t *testing.T, ctx context.Context, c *client.Client) {
	t.Helper()
	want := make(map[string]int)
	b.mu.Lock()
	for id := range b.confirmed {
		if strings.HasPrefix(id, powerQueue) {
			want[id] = 0
		}
	}
	b.mu.Unlock()
	info, err := c.Admin().Queue(ctx, powerQueue)
	if err != nil {
		t.Fatal(err)
	}
	if info.Counts.Stored != uint64(len(want)) {
		t.Errorf("%d messages are stored, %d were confirmed", info.Counts.Stored, len(want))
	}
	// What was stored arrives once: nobody has held it before.
	var mu sync.Mutex
	var wrong []string
	got, all := 0, make(chan struct{})
	draining, done := context.WithCancel(ctx)
	defer done()
	drained := make(chan error, 1)
	go func() {
		drained <- c.Consume(draining, powerQueue, func(_ context.Context, d *client.Delivery) error {
			id, _, _ := strings.Cut(string(d.Body()), " ")
			mu.Lock()
			defer mu.Unlock()
			n, known := want[id]
			if !known || n > 0 {
				wrong = append(wrong, id)
			}
			want[id] = n + 1
			if got++; got == int(info.Counts.Stored) {
				close(all)
			}
			return nil
		})
	}()
	select {
	case <-all:
	case err := <-drained:
		t.Fatalf("drain: %v", err)
	case <-ctx.Done():
		mu.Lock()
		t.Errorf("%d of %d stored messages arrived", got, info.Counts.Stored)
		mu.Unlock()
	}
	done()
	<-drained
	missing := 0
	for _, n := range want {
		if n == 0 {
			missing++
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("%d tried, %d confirmed, %d of them in %s; %d acked in %s", len(b.tried), len(b.confirmed), len(want), powerQueue, len(b.acked), powerWork)
	if missing > 0 || len(wrong) > 0 || len(b.again) > 0 {
		t.Errorf("%d confirmed messages are lost; %d came twice or were never confirmed: %v; %d came again after their ack: %v",
			missing, len(wrong), head(wrong), len(b.again), head(b.again))
	}
}

func head(ids []string) []string { return ids[:min(10, len(ids))] }
