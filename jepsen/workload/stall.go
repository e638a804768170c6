package workload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	stallLease     = 6 * time.Second
	longLease      = 15 * time.Minute
	stallProducers = 3
	stallConsumers = 3
	stallPatient   = 60 // per cent of the publishes
	stallSome      = 4  // stops longer than a lease or the grace time that a run needs at most
)

// stops is what the clients of a run are stopped for, and under which lease.
type stops struct {
	lease                time.Duration // of the queue
	consumers, producers []length
	last                 length              // of all together, at the end
	atOnce               [stallConsumers]int // how many handlers each consumer calls
	burst                int                 // the producer that is never stopped publishes so many at once
}

// shortStops are mostly longer than a lease.
var shortStops = stops{
	lease:     stallLease,
	consumers: []length{beyondLease, beyondSilence, beyondGrace},
	producers: []length{beyondLease, beyondSilence},
	last:      beyondSilence,
	atOnce:    [...]int{workAtOnce, workAtOnce, workAtOnce},
}

// longStops never outlast a lease. A third of it, after which a client asks by itself
// what has become of what it holds, is far more than what anything may take.
var longStops = stops{
	lease:     longLease,
	consumers: []length{brief, cutOff, beyondSilence, beyondGrace},
	producers: []length{brief, cutOff, beyondSilence},
	last:      brief,
	// Messages wait at the first two when these are stopped: who holds less gets the next,
	// so there have to be many at a time. The last has time for the rest.
	atOnce: [...]int{workFew, 1, workAtOnce},
	burst:  300,
}

// stall is about clients whose processes stand still for longer than a lease, than
// their own time-outs, and than the cluster waits for a silent connection or for a
// consumer. What they held others get, they are told so, and they go on by themselves.
func stall() Workload {
	w := stalls("stall", "producers and consumers in processes of their own that are stopped (SIGSTOP) for up to half a minute, also several at once, and go on; a lease of 6 s", shortStops)
	setup := w.Setup
	w.Setup = func(s *history.Setup, seconds float64) {
		setup(s, seconds)
		// While nodes are killed all the time, and nobody leads, leases do not run out.
		s.Least.Overtaken, s.Least.Late, s.Least.Told = 1, 1, 1
	}
	return w
}

// stallLong is about the same with leases that outlast every stop. Who was away for less
// than the grace time keeps what it has, in order, and goes on with it soon, whatever its
// lease is; who was away for longer does not go on with what others have by then.
func stallLong() Workload {
	w := stalls("stall-long", "the same with a lease of 15 minutes, and stops of a few seconds too, in some of which the connections are ended", longStops)
	setup := w.Setup
	w.Setup = func(s *history.Setup, seconds float64) {
		setup(s, seconds)
		s.Least.Kept = 1
	}
	return w
}

func stalls(name, what string, of stops) Workload {
	return Workload{
		Name:   name,
		Apart:  true,
		What:   what,
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: of.lease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(of.lease)
			s.ProducerOrder = true
			least := int(seconds * 10)
			s.Least = history.Least{
				Publishes: least, Deliveries: least, Acks: least,
				Stops: min(max(1, int(seconds/15)), stallSome), CutOff: 1,
			}
		},
		Start: func(ctx context.Context, w *World) *Traffic { return startStall(ctx, w, of) },
	}
}

func startStall(ctx context.Context, w *World, of stops) *Traffic {
	t, producing, consuming := newTraffic(ctx)
	began, err := ahead(func() time.Duration { return time.Duration(w.H.Now()) })
	if err != nil {
		w.Report("%v", err)
		return t
	}
	s := &stalling{w: w, last: of.last, changed: make(chan struct{}, 1), messages: map[string]*holders{}}
	job := clientJob{
		Run: w.Run, Queue: "jepsen", URL: w.URL, Seed: w.Seed, Began: began,
		Lease: of.lease, Rate: float64(w.Rate) / 2 / stallProducers, Patient: stallPatient,
	}
	for i := range stallConsumers {
		job.Name, job.Consumes, job.AtOnce = fmt.Sprintf("c%d", i+1), true, of.atOnce[i]
		s.consumers = s.start(s.consumers, job)
	}
	for i := range stallProducers {
		job.Name, job.Consumes, job.AtOnce = fmt.Sprintf("p%d", i+1), false, 0
		if i == stallProducers-1 {
			job.Burst = of.burst
		}
		s.producers = s.start(s.producers, job)
	}
	stopping, enough := context.WithCancel(producing)
	s.stops.Go(func() {
		defer enough()
		select {
		case <-w.Draining:
		case <-producing.Done():
		}
	})
	// The last of each kind is never stopped: others are to be there meanwhile. The first
	// consumer begins with what takes most of a short run: to be given up.
	consumers, producers := butLast(s.consumers), butLast(s.producers)
	for i, a := range consumers {
		s.stops.Go(func() { a.stopAndGo(stopping, of.consumers, (1-i)*(len(of.consumers)-1)) })
	}
	for i, a := range producers {
		s.stops.Go(func() { a.stopAndGo(stopping, of.producers, i) })
	}
	for _, a := range s.consumers {
		t.consumers.Go(func() {
			<-consuming.Done()
			a.end()
		})
	}
	for _, a := range s.producers {
		t.producers.Go(func() {
			<-producing.Done()
			s.proof.Do(s.prove)
			a.end()
		})
	}
	return t
}

// stalling is the workload as the process of the run sees it.
type stalling struct {
	w                    *World
	last                 length
	consumers, producers []*apart
	stops                sync.WaitGroup
	proof                sync.Once
	changed              chan struct{}

	mu       sync.Mutex // guards what follows, and what a client says of itself
	messages map[string]*holders
}

// holders are the clients that were handed one message and have not settled it.
type holders struct {
	newest int // attempt; who had it may have settled it
	who    []handing
}

type handing struct {
	by      *apart
	attempt int
	told    bool // that others have a newer one
}

// proofMost is more than anything may take that has to happen at some time.
const proofMost = patientMost + 15*time.Second

// prove is the end, when nothing else is broken any more and there is traffic still:
// every client goes on; all are stopped together, once more; and every client goes on.
func (s *stalling) prove() {
	s.stops.Wait()
	if s.goesOn() {
		r := s.w.rng("last stop")
		for _, a := range append(butLast(s.consumers), butLast(s.producers)...) {
			d := between(r, s.last.least, s.last.most)
			s.stops.Go(func() { a.stop(context.Background(), d, s.last.cut) })
		}
		s.stops.Wait()
		s.goesOn()
	}
	for _, a := range s.consumers {
		a.child.tell(tellDraining)
	}
}

// butLast are all that are stopped.
func butLast(all []*apart) []*apart { return slices.Clone(all[:max(0, len(all)-1)]) }

// goesOn waits until every client has done something since it was stopped last, and every
// handler whose lease is over has heard so: false when that takes longer than it may.
func (s *stalling) goesOn() bool {
	most := time.NewTimer(proofMost)
	defer most.Stop()
	for !s.proven() {
		select {
		case <-s.changed:
		case <-most.C:
			return false // the checkers have seen enough
		}
	}
	return true
}

func (s *stalling) proven() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range append(slices.Clone(s.consumers), s.producers...) {
		if !a.over && (a.done <= a.woken || a.waits > 0) {
			return false
		}
	}
	for _, m := range s.messages {
		if slices.ContainsFunc(m.who, func(h handing) bool { return h.told && !h.by.over }) {
			return false
		}
	}
	return true
}

// handed notes that a client was handed a message, and tells all who have an older
// attempt of it. A client that was stopped may say so late.
func (s *stalling) handed(a *apart, id string, attempt int) {
	m := s.messages[id]
	if m == nil {
		m = &holders{}
		s.messages[id] = m
	}
	m.newest = max(m.newest, attempt)
	m.who = append(m.who, handing{by: a, attempt: attempt})
	for i := range m.who {
		if h := &m.who[i]; h.attempt < m.newest && !h.told {
			h.told = true
			h.by.child.tell(tellOvertaken + " " + overtakingOf(id, h.attempt))
		}
	}
}

// settled notes that a client holds a message no longer.
func (s *stalling) settled(a *apart, id string, attempt int) {
	m := s.messages[id]
	if m == nil {
		return
	}
	m.who = slices.DeleteFunc(m.who, func(h handing) bool { return h.by == a && h.attempt == attempt })
	if len(m.who) == 0 && m.newest == 1 {
		delete(s.messages, id)
	}
}
