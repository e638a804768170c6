package workload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"onceq/jepsen/history"
)

// length is between which times a stop lasts.
type length struct {
	least, most time.Duration
	cut         bool // and meanwhile the connections of the client end
}

// What a client is stopped for. The cluster asks who says nothing for 5 s and gives the
// connection up when it still says nothing after 10 s, which it looks at each 2.5 s; from
// then on the consumer has the grace time; as it has from the end of its connection.
var (
	brief         = length{least: time.Second, most: 4 * time.Second}
	cutOff        = length{least: 2 * time.Second, most: 6 * time.Second, cut: true}
	beyondLease   = length{least: stallLease + time.Second, most: stallLease + 3*time.Second}
	beyondSilence = length{least: 13 * time.Second, most: 16 * time.Second}
	beyondGrace   = length{least: 24 * time.Second, most: 27 * time.Second}
)

const (
	awakeLeast = time.Second // between two stops
	awakeMost  = 4 * time.Second
	// toldAhead is how many lines may wait for a client that is stopped: more than it can
	// hold messages.
	toldAhead = 1 << 14
	// endMost is how long a client may take to end in order.
	endMost = patientMost + 30*time.Second
)

// apart is a client in a process of its own, which the process of the run stops, lets go
// on, and writes the history of.
type apart struct {
	s     *stalling
	name  string
	relay *relay
	child *child[history.Event]
	heard chan struct{} // closed when all that it has said is written

	// Guarded by s.mu.
	woken int64 // when it went on last
	done  int64 // when the newest thing that it has got done was
	waits int   // handlers that are still to hear that their lease is lost
	over  bool  // it says no more
}

// start appends a client that runs; without it there is a report.
func (s *stalling) start(all []*apart, job clientJob) []*apart {
	relay, err := newRelay(s.w, job.Name)
	if err != nil {
		s.w.Report("%s: %v", job.Name, err)
		return all
	}
	job.Via = relay.via()
	c, err := startChild[history.Event](childJob{Client: &job}, toldAhead)
	if err != nil {
		s.w.Report("%s: %v", job.Name, err)
		relay.close()
		return all
	}
	a := &apart{s: s, name: job.Name, relay: relay, child: c, heard: make(chan struct{})}
	go a.listen()
	return append(all, a)
}

// listen writes what the client says into the history of the run: the times are of one
// clock, the numbers are not.
func (a *apart) listen() {
	defer close(a.heard)
	lines := map[int]int{} // of what has no outcome yet: its number to ours
	for e := range a.child.said {
		if e.F == noteLine {
			a.s.w.Report("%s", e.Text)
			continue
		}
		own := e.I
		if e.Of >= 0 {
			of := e.Of
			e.Of = lines[of]
			delete(lines, of)
		}
		if n := a.s.w.H.Add(e); e.Type == history.Invoke {
			lines[own] = n
		}
		a.note(e)
	}
	a.s.mu.Lock()
	a.over = true
	a.s.mu.Unlock()
	a.s.kick()
}

// note keeps what the workload has to know of what a client has said.
func (a *apart) note(e history.Event) {
	s := a.s
	s.mu.Lock()
	defer s.kick()
	defer s.mu.Unlock()
	count := &s.w.Count
	switch {
	case e.F == history.Deliver:
		count.Delivered.Add(1)
		a.done = max(a.done, e.T1)
		s.handed(a, e.ID, e.Attempt)
	case e.F == history.Publish && e.Type == history.OK:
		count.Published.Add(1)
		a.done = max(a.done, e.T1)
	case e.F == history.Publish && e.Type == history.Info:
		count.Unknown.Add(1)
	case e.F == history.Publish && e.Type == history.Fail:
		count.Refused.Add(1)
	case e.F == history.Ack && e.Type == history.Invoke:
		s.settled(a, e.ID, e.Attempt)
	case e.F == history.Ack && e.Type == history.OK:
		count.Acked.Add(1)
	case e.F == history.Ack && e.Type == history.Fail:
		count.Lost.Add(1)
	case e.F == history.Told && e.Type == history.Invoke:
		a.waits++
	case e.F == history.Told:
		a.waits--
	}
}

func (s *stalling) kick() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// stopAndGo stops the process again and again until ctx ends: for each of the lengths
// once before any comes again, and for the one of number first at first.
func (a *apart) stopAndGo(ctx context.Context, lengths []length, first int) {
	r := a.s.w.rng(a.name + " stops")
	deck := slices.Clone(lengths)
	deck[0], deck[first] = deck[first], deck[0]
	for next := 0; pause(ctx, between(r, awakeLeast, awakeMost)); next++ {
		if next == len(deck) {
			next = 0
			r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		a.stop(ctx, between(r, deck[next].least, deck[next].most), deck[next].cut)
	}
}

// stop stops the process for d, or until ctx ends. cut ends its connections half-way.
func (a *apart) stop(ctx context.Context, d time.Duration, cut bool) {
	w, p := a.s.w, a.child.cmd.Process
	e := history.Event{Proc: a.name, Client: a.name, F: history.Stopped, Type: history.OK, Of: -1, T0: w.H.Now()}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		w.Report("%s: stop: %v", a.name, err)
		return
	}
	if cut && pause(ctx, d/2) {
		e.Text = "its connections were ended"
		a.relay.hangUp()
		d -= d / 2
	}
	pause(ctx, d)
	e.Seen = standsStill(p.Pid)
	err := p.Signal(syscall.SIGCONT)
	e.T1 = w.H.Now()
	if err != nil {
		w.Report("%s: go on: %v", a.name, err)
	}
	w.H.Add(e)
	a.s.mu.Lock()
	a.woken = e.T1
	a.s.mu.Unlock()
}

// standsStill says that a process is stopped, as far as the system tells: Linux does.
func standsStill(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name, in brackets, may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return len(fields) > 0 && string(fields[0]) == "T"
}

// end lets the client end in order, and writes what it says until then.
func (a *apart) end() {
	a.child.noMore()
	most := time.AfterFunc(endMost, func() {
		a.s.w.Report("%s: it does not end, and is killed", a.name)
		a.child.kill()
	})
	<-a.heard
	most.Stop()
	if how := a.child.end(); how != "" {
		a.s.w.Report("%s: %s", a.name, how)
	}
	a.relay.close()
}
