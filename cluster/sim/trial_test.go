package sim

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/jepsen/check"
	"onceq/jepsen/history"
	"onceq/jepsen/proxy"
	"onceq/jepsen/workload"
)

// outcome is what came of one trial.
type outcome struct {
	broken    []string // what was seen broken, the first in front
	failovers int
	installs  uint64 // of snapshots
	jumps     int    // of wall clocks
	expired   int    // copies that were refused because their session had ended
	stats     check.Stats
	virtual   time.Duration
}

// recorder keeps what a World complains of, so that a trial that fails can be
// shrunk before the test fails.
type recorder struct {
	testing.TB
	mu    sync.Mutex // guards what follows
	texts []string
}

func (r *recorder) Errorf(format string, args ...any) { r.add(fmt.Sprintf(format, args...)) }
func (r *recorder) Error(args ...any)                 { r.add(fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) { panic(given{fmt.Sprintf(format, args...)}) }
func (r *recorder) Failed() bool                      { return len(r.all()) > 0 }
func (r *recorder) FailNow()                          { panic(given{"it cannot go on"}) }

// given is the panic of a World that gives up.
type given struct{ text string }

func (r *recorder) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, text)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.texts)
}

const (
	trialNodes  = 3
	trialLeast  = 3 * time.Second // a consumer is silent from here on
	trialDrain  = 5 * time.Minute // of virtual time
	trialTail   = time.Second     // of traffic after the last step
	graceTime   = 10 * time.Second
	trialClocks = 100 * time.Millisecond
)

// trial runs one schedule in a bubble of its own.
func trial(t *testing.T, load string, seed uint64, rate int, steps []step) (out outcome) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{TB: t}
		tr := &running{rec: rec, load: load, seed: seed, rate: rate}
		began := time.Now()
		func() {
			defer func() {
				if p := recover(); p != nil {
					g, ok := p.(given)
					if !ok {
						g.text = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
					}
					rec.add(g.text)
				}
			}()
			tr.run(steps)
		}()
		if tr.w != nil {
			tr.w.Close()
		}
		out.broken = append(tr.broken, rec.all()...)
		out.failovers, out.installs, out.jumps, out.stats, out.virtual = tr.failovers(), tr.installs(), tr.jumps, tr.stats, time.Since(began)
	})
	return out
}

// running is a trial under way. All of it but the traffic is done by one
// goroutine.
type running struct {
	rec    *recorder
	load   string
	seed   uint64
	rate   int
	w      *World
	h      *history.Writer
	hosts  *hosts
	cuts   []cutLine
	later  []later
	terms  map[uint64]bool
	lives  map[*cluster.Node]*life
	jumps  int // of wall clocks
	broken []string
	stats  check.Stats
}

// cutLine is a direction that lets nothing through; with to "" a host is isolated.
type cutLine struct{ from, to string }

type later struct {
	at time.Time
	do func()
}

func (tr *running) run(steps []step) {
	var log bytes.Buffer
	load, admin, traffic, presence := tr.begin(&log)
	defer admin.Close()
	defer traffic.Stop()
	ctx := context.Background()
	for _, s := range steps {
		tr.sleep(s.after)
		tr.do(s, admin)
	}
	tr.sleep(trialTail)
	tr.healAll()
	tr.sleep(trialTail)
	traffic.StopProducing()
	tr.drain(ctx, admin, load)
	traffic.Stop()
	presence.Finish()
	if err := tr.h.Flush(); err != nil {
		panic(given{err.Error()})
	}
	events, err := history.Read(&log)
	if err != nil {
		panic(given{err.Error()})
	}
	report := check.Run(events)
	tr.stats = report.Stats
	for _, v := range report.Violations {
		tr.broken = append(tr.broken, fmt.Sprintf("%s %s at %.2f s: %s", v.Checker, v.ID, float64(v.At)/1e9, v.Text))
	}
	tr.w.CaughtUp()
	tr.w.DigestsAgree(admin)
}

// begin starts a cluster and the traffic.
func (tr *running) begin(log *bytes.Buffer) (workload.Workload, *client.Client, *workload.Traffic, *proxy.Presence) {
	load, ok := workload.Find(tr.load)
	if !ok {
		panic(given{"no workload " + tr.load})
	}
	if load.Apart {
		panic(given{"workload " + tr.load + " has processes of its own, and there are none in virtual time: run it with cmd/jepsen"})
	}
	tr.h, tr.terms, tr.lives = history.NewWriter(log), map[uint64]bool{}, map[*cluster.Node]*life{}
	setup := history.Setup{Workload: load.Name, Seed: tr.seed, Nodes: trialNodes, Grace: int64(graceTime), Epsilon: int64(trialClocks)}
	load.Setup(&setup, 0)
	setup.Least = history.Least{}
	tr.h.Add(history.Event{F: history.Run, Type: history.OK, Of: -1, Setup: &setup})
	tr.w = New(tr.rec, trialNodes, func(c *cluster.Config) {
		// So little stays in the log that who was away for seconds is sent a snapshot.
		c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = 200, 2*time.Second, 96
	})
	tr.w.Net.SetDelay(200 * time.Microsecond)
	presence := proxy.NewPresence(trialLeast, func(label string, from, to time.Time) {
		tr.h.Add(history.Event{Proc: label, F: history.Silent, Type: history.OK, Of: -1, T0: tr.h.Since(from), T1: tr.h.Since(to)})
	})
	tr.hosts = &hosts{w: tr.w, tap: presence}
	admin := tr.w.Dial("admin")
	ctx := context.Background()
	for name, s := range load.Queues {
		if _, err := admin.Admin().CreateQueue(ctx, name, s); err != nil {
			panic(given{"create queue: " + err.Error()})
		}
	}
	var addrs []string
	for _, n := range tr.w.Nodes {
		addrs = append(addrs, n.Host+":7450")
	}
	traffic := load.Start(ctx, &workload.World{
		H: tr.h, Run: fmt.Sprintf("r%d", tr.seed), Addrs: addrs, URL: strings.Join(addrs, ","), Seed: tr.seed, Rate: tr.rate, Numbers: load.Numbers, Virtual: true,
		Dial:   func(name string) rawDialer { return tr.hosts.dial(name) },
		Report: func(string, ...any) {},
	})
	return load, admin, traffic, presence
}

// sleep does what is due meanwhile.
func (tr *running) sleep(d time.Duration) {
	end := time.Now().Add(d)
	for len(tr.later) > 0 && !tr.later[0].at.After(end) {
		x := tr.later[0]
		tr.later = tr.later[1:]
		time.Sleep(time.Until(x.at)) // of virtual time
		x.do()
	}
	time.Sleep(time.Until(end))
	tr.look()
}

// in puts off what undoes a step.
func (tr *running) in(d time.Duration, do func()) {
	tr.later = append(tr.later, later{time.Now().Add(d), do})
	slices.SortStableFunc(tr.later, func(a, b later) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
}

// life is a node from a start to its end.
type life struct {
	number   int    // of the start, over all nodes
	received uint64 // snapshots of a leader
}

// look notes what the nodes say of themselves, and returns who leads.
func (tr *running) look() *Node {
	var leader *Node
	var term uint64
	for _, n := range tr.w.Nodes {
		if n.Node == nil {
			continue
		}
		s := n.Status()
		l := tr.lives[n.Node]
		if l == nil {
			l = &life{number: len(tr.lives) + 1}
			tr.lives[n.Node] = l
		}
		l.received = s.SnapshotsReceived
		now := tr.h.Now()
		tr.h.Add(history.Event{Proc: "monitor", F: history.Status, Type: history.OK, Of: -1, T0: now, T1: now, Node: n.Host, Life: l.number, State: &history.State{
			Role: s.Role, Leader: s.Leader, Term: s.Term, Applied: s.AppliedIndex, Commit: s.CommitIndex, Snapshot: s.SnapshotIndex,
			DigestIndex: s.DigestIndex, Digest: fmt.Sprintf("%016x", s.Digest), Serving: s.Serving,
		}})
		if s.Role == "leader" && s.Term >= term {
			leader, term = n, s.Term
		}
	}
	if leader != nil {
		tr.terms[term] = true
	}
	return leader
}

// installs are the snapshots that leaders have sent.
func (tr *running) installs() (n uint64) {
	for _, l := range tr.lives {
		n += l.received
	}
	return n
}

func (tr *running) failovers() int { return max(0, len(tr.terms)-1) }

func (tr *running) do(s step, admin *client.Client) {
	n := tr.w.Nodes[max(0, s.node)]
	if leader := tr.look(); s.node == leads && leader != nil {
		n = leader
	}
	others := slices.DeleteFunc(slices.Clone(tr.w.Nodes), func(o *Node) bool { return o == n })
	host := ""
	if young := tr.hosts.young(); len(young) > 0 {
		host = young[s.other%len(young)]
	}
	switch s.what {
	case "kill":
		tr.w.Kill(n)
		tr.in(s.last, func() { tr.start(n) })
	case "kill-all":
		for _, n := range tr.w.Nodes {
			tr.w.Kill(n)
		}
		tr.in(s.last, func() { tr.start(tr.w.Nodes...) })
	case "stop":
		tr.w.Stop(n)
		tr.in(s.last, func() { tr.start(n) })
	case "isolate":
		tr.w.Gossip.Isolate(n.gossip)
		tr.cut(s.last, cutLine{n.Host, ""})
		tr.in(s.last, func() { tr.w.Gossip.Heal(n.gossip) })
	case "minority", "mute", "deaf":
		var lines []cutLine
		for _, o := range others {
			if s.what != "deaf" {
				lines = append(lines, cutLine{n.Host, o.Host})
			}
			if s.what != "mute" {
				lines = append(lines, cutLine{o.Host, n.Host})
			}
		}
		tr.cut(s.last, lines...)
	case "transfer":
		// It may take long, and its answer is of no interest.
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		_ = admin.Admin().TransferLeadership(ctx, "")
		cancel()
	case "reset":
		tr.w.Net.Reset(host)
	case "lose":
		var lines []cutLine
		for _, n := range tr.w.Nodes {
			lines = append(lines, cutLine{n.Host, host})
		}
		tr.cut(s.last, lines...)
		tr.in(s.last-1, func() { tr.w.Net.Reset(host) })
	case "hold":
		tr.cut(s.last, cutLine{host, n.Host})
	case wall:
		tr.w.SetWall(n, wallOf(s))
		tr.jumps++
	case disk:
		if n.Node != nil {
			d := n.disk // of this life: the next one has another
			d.SetDelay(appendOf(s))
			tr.in(s.last, func() { d.SetDelay(0) })
		}
	case "slow":
		tr.w.Net.SetDelay(20 * time.Millisecond)
		tr.in(s.last, func() { tr.w.Net.SetDelay(200 * time.Microsecond) })
	}
}

// start starts those that are down.
func (tr *running) start(nodes ...*Node) {
	var down []*Node
	for _, n := range nodes {
		if n.Node == nil {
			down = append(down, n)
		}
	}
	tr.w.Start(down...)
}

// cut stops directions for a while. The network heals all at once, so what stays
// cut is cut anew.
func (tr *running) cut(last time.Duration, lines ...cutLine) {
	tr.cuts = append(tr.cuts, lines...)
	tr.apply()
	tr.in(last, func() {
		for _, l := range lines {
			if i := slices.Index(tr.cuts, l); i >= 0 {
				tr.cuts = slices.Delete(tr.cuts, i, i+1)
			}
		}
		tr.apply()
	})
}

func (tr *running) apply() {
	tr.w.Net.Heal()
	for _, l := range tr.cuts {
		if l.to == "" {
			tr.w.Net.Isolate(l.from)
		} else {
			tr.w.Net.Cut(l.from, l.to)
		}
	}
}

// healAll waits for everything that is still to be undone.
func (tr *running) healAll() {
	for len(tr.later) > 0 {
		tr.sleep(max(0, time.Until(tr.later[0].at)))
	}
	tr.cuts = nil
	tr.w.Heal()
	tr.start(tr.w.Nodes...)
}

// drain waits until the queues are empty, as the harness of processes does.
func (tr *running) drain(ctx context.Context, admin *client.Client, load workload.Workload) {
	ctx, cancel := context.WithTimeout(ctx, trialDrain)
	defer cancel()
	op := tr.h.Invoke(history.Event{Proc: "monitor", F: history.Drain})
	for calm, left := 0, ""; calm < 2; {
		if ctx.Err() != nil {
			op.Err = left
			tr.h.Complete(op, history.Fail)
			return
		}
		left = ""
		for name := range load.Queues {
			q, err := admin.Admin().Queue(context.WithoutCancel(ctx), name)
			if err != nil {
				left += err.Error() + " "
			} else if c := q.Counts; c.Ready+c.Leased+c.Delayed+c.Parked > 0 {
				left += fmt.Sprintf("%s: %+v ", name, q.Counts)
			}
		}
		calm++
		if left != "" {
			calm = 0
		}
		time.Sleep(500 * time.Millisecond)
	}
	tr.h.Complete(op, history.OK)
	for name := range load.Queues {
		begun := tr.h.Now()
		q, err := admin.Admin().Queue(ctx, name)
		if err != nil {
			continue
		}
		e := history.Event{Proc: "monitor", F: history.Counts, Type: history.OK, Key: name, Of: -1, T0: begun, T1: tr.h.Now()}
		if load.Numbers {
			e.Number = q.Number
		}
		c := q.Counts
		e.Queue = &history.Queue{
			Stored: c.Stored, Ready: c.Ready, Leased: c.Leased, Delayed: c.Delayed, Parked: c.Parked, Acked: c.Acked, Purged: c.Purged,
			TooOld: c.Expired, DeadLettered: c.DeadLettered, Deleted: c.Deleted, Moved: c.Moved,
		}
		tr.h.Add(e)
	}
}
