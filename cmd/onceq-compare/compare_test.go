package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain makes the tests' binary a node of bare when it is started as one, as main does.
func TestMain(m *testing.M) {
	beNode()
	os.Exit(m.Run())
}

// A machine that is busy elsewhere may confirm nothing within the time of a window.
func TestWindow_NotBeforeAMessage(t *testing.T) {
	t.Parallel()
	b := &bench{c: noCluster{}}
	b.begin()
	b.from.at = b.from.at.Add(-time.Second) // the time has been over for long
	looks := 0
	over := func() bool {
		if looks++; looks == 3 {
			b.confirmed.Add(1)
		}
		return false
	}
	var r result
	b.window(t.Context(), time.Millisecond, over, &r)
	if r.Messages != 1 || r.PerSecond <= 0 {
		t.Fatalf("%+v", r)
	}
	b.from.ended = 1
	b.fail(errors.New("broke off"))
	if b.window(t.Context(), time.Millisecond, over, &r); r.Messages != 0 {
		t.Fatalf("%+v", r)
	}
}

type noCluster struct{ cluster }

func (noCluster) Pids() []int { return nil }

// dying is a cluster whose leader takes a while to be gone, and whose publishes stand
// still from the beginning of that to some time after it.
type dying struct {
	noCluster
	mu      sync.Mutex // guards again
	again   time.Time  // publishes are confirmed again
	handled chan []byte
}

const dies, elects = 300 * time.Millisecond, 200 * time.Millisecond

func (d *dying) Leader(context.Context, string) (int, error) { return 0, nil }

func (d *dying) Kill(int) error {
	d.mu.Lock()
	d.again = time.Now().Add(dies + elects)
	d.mu.Unlock()
	time.Sleep(dies)
	return nil
}

func (d *dying) Producer(context.Context, string, int) (producer, error) {
	return dyingProducer{d}, nil
}
func (d *dying) Consumer(context.Context, string, int) (consumer, error) { return d, nil }

func (d *dying) Run(ctx context.Context, handle func(body []byte)) error {
	for {
		select {
		case b := <-d.handled:
			handle(b)
		case <-ctx.Done():
			return nil
		}
	}
}

type dyingProducer struct{ *dying }

func (p dyingProducer) Close() {}

func (p dyingProducer) Publish(_ string, body []byte) (confirmation, error) {
	p.handled <- body
	return p, nil
}

func (p dyingProducer) Wait(time.Duration) error {
	time.Sleep(time.Millisecond)
	p.mu.Lock()
	again := p.again
	p.mu.Unlock()
	time.Sleep(time.Until(again))
	return nil
}

// TestFailover_TheGapBeginsWithTheKill: a leader that takes long to be gone is not
// given that time for nothing.
func TestFailover_TheGapBeginsWithTheKill(t *testing.T) {
	t.Parallel()
	b := &bench{c: &dying{handled: make(chan []byte, 1)}, sizes: sizes{time: 2 * time.Second}}
	b.size = 64
	var r result
	if err := b.failover(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if least := (dies + elects - 50*time.Millisecond).Seconds(); r.Gap < least {
		t.Errorf("publishes stood still for %v, the gap is said to be %.3f s", dies+elects, r.Gap)
	}
	if r.Lost != 0 || r.Twice != 0 || r.Messages == 0 {
		t.Errorf("%+v", r)
	}
}

// Every system that is on this machine does every kind of work, briefly.
// JetStream comes with the module; RabbitMQ is asked too where it is installed.
func TestSystems_DoAllKindsOfWork(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bin := t.TempDir()
	o := options{Systems: []string{"onceq", "jetstream-always", "bare"}}
	if _, err := newRabbit(ctx); !errors.Is(err, errNoRabbit) {
		o.Systems = append(o.Systems, "rabbitmq")
	}
	systems, err := chooseSystems(ctx, o, bin)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := chooseWorks([]string{"failover", "e2e-1k", "one-1k", "paced-1k", "drain-1k"})
	if err != nil {
		t.Fatal(err)
	}
	// RabbitMQ reads its cookie from a folder that is its home: a short path.
	dir, err := os.MkdirTemp("", "onceq-compare-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var all []result
	for _, s := range systems {
		results := measure(ctx, s, chosen, sizes{500 * time.Millisecond, 100 * time.Millisecond, 2000, dir}, filepath.Join(dir, s.Name()), 0)
		does := 0
		for _, w := range chosen {
			if s.Does(w) {
				does++
			}
		}
		if len(results) != does || does < len(chosen)-1 {
			t.Fatalf("%s: %d results of %d", s.Name(), len(results), does)
		}
		for _, r := range results {
			if r.Err != "" || r.Messages == 0 || r.Lost > 0 {
				t.Errorf("%+v", r)
			}
			if r.Work != "failover" && r.ServerCPU+r.PerSecond == 0 {
				t.Errorf("%s, %s: nothing measured", r.System, r.Work)
			}
		}
		all = append(all, results...)
	}
	var table strings.Builder
	if err := writeTable(&table, systems, all, false); err != nil || !strings.Contains(table.String(), "OF BARE") || !strings.Contains(table.String(), "%\n") {
		t.Fatal(err, table.String())
	}
	t.Log("\n" + table.String())
}

func TestRatio_AboveOneIsBetterWhicheverWayTheFigurePoints(t *testing.T) {
	t.Parallel()
	systems := []system{&onceqSystem{}, &jetstreamSystem{}, &jetstreamSystem{always: true}, &rabbitSystem{}, &bareSystem{}}
	of := func(system, work string, perSecond, gap float64) result {
		return result{System: system, Work: work, PerSecond: perSecond, Gap: gap}
	}
	results := []result{
		of("onceq", "pub-16", 90, 0), of("onceq", "pub-16", 100, 0), of("onceq", "pub-16", 300, 0),
		of("jetstream", "pub-16", 1000, 0), // confirms what is not on a disk
		of("jetstream-always", "pub-16", 50, 0), of("rabbitmq", "pub-16", 20, 0),
		of("onceq", "failover", 0, 2), of("jetstream-always", "failover", 0, 5), of("rabbitmq", "failover", 0, 1),
		{System: "rabbitmq", Work: "pub-16", PerSecond: 9999, Err: "broke off"},
		of("bare", "pub-16", 400, 0), // the limit, and none of the peers
		{System: "onceq", Work: "one-1k", P50: 2}, {System: "bare", Work: "one-1k", P50: 1.5},
	}
	for _, l := range lines {
		got, ok := ratio(results, systems, l)
		switch {
		case l.text == "publish 16 B, messages/s" && (!ok || got != 2):
			t.Errorf("%s: %v", l.text, got)
		case strings.HasPrefix(l.text, "kill -9") && (!ok || got != 0.5):
			t.Errorf("%s: %v", l.text, got)
		case l.work == "e2e-16" && ok:
			t.Errorf("%s: a ratio of nothing: %v", l.text, got)
		}
		got, ok = reached(results, l)
		switch {
		case l.work == "pub-16" && (!ok || got != 0.25), l.work == "one-1k" && (!ok || got != 0.75):
			t.Errorf("%s: of what is possible: %v", l.text, got)
		case l.work == "failover" && ok:
			t.Errorf("%s: of what nobody measured: %v", l.text, got)
		}
	}
	if code, err := verdict(results); code != 1 || err == nil {
		t.Error(code, err)
	}
	if code, _ := verdict([]result{{System: "onceq", Work: "failover", Lost: 1}}); code != 8 {
		t.Error(code)
	}
}

func TestCell_MedianAndSpread(t *testing.T) {
	t.Parallel()
	for want, v := range map[string][]float64{
		"-": nil, "1,234,567": {1234567}, "2 (1 to 4)": {1, 2, 4}, "3": {3, 3},
	} {
		if got := cell(v, thousands); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	for want, v := range map[string]float64{"0": 0, "0.0236": 0.02361, "1.05": 1.051, "12.3": 12.34, "123": 123.4, "1235": 1234.6} {
		if got := digits(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

// TestAtRest_WaitsForWhatIsStillWritten, and not for ever.
func TestAtRest_WaitsForWhatIsStillWritten(t *testing.T) {
	t.Parallel()
	written, looks, more := 0.0, 0, 5
	disk := func() float64 {
		if looks++; looks <= more {
			written += restBytes
		}
		return written
	}
	if atRest(t.Context(), disk, time.Millisecond); looks != more+1 {
		t.Errorf("it ended after %d looks, the disk was at rest after %d", looks, more+1)
	}
	looks, more = 0, 1<<30
	if atRest(t.Context(), disk, time.Millisecond); looks != restBound+1 {
		t.Errorf("%d looks at a disk that is never at rest", looks)
	}
}

func TestBadOptions_SayWhatThereIs(t *testing.T) {
	t.Parallel()
	for _, o := range []options{
		{Works: []string{"nap"}, Runs: 1, Time: 1, Backlog: 4},
		{Runs: 0, Time: 1, Backlog: 4},
		{Runs: 1, Time: 1, Backlog: 1},
		{Systems: []string{"kafka"}, Runs: 1, Time: 1, Backlog: 4},
	} {
		if code, err := run(t.Context(), o); code != 2 || err == nil {
			t.Errorf("%+v: %d, %v", o, code, err)
		}
	}
}

func TestBodies_DoNotRepeatAndTellThemselves(t *testing.T) {
	t.Parallel()
	a, b := newBody(64, 1, 2, 5*time.Second), newBody(64, 1, 3, 5*time.Second)
	if numberOf(a) == numberOf(b) || dueOf(a) != 5*time.Second || string(a[headBytes:]) == string(b[headBytes:]) {
		t.Fatal(a, b)
	}
}
