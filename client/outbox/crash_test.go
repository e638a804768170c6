package outbox

import (
	"fmt"
	"strings"
	"testing"

	"onceq/client"
	"onceq/client/onceqtest"
)

// steps are the places between which the process can die.
var steps = []string{
	"session opened", // and nothing sent
	"before commit",  // of entries, sequences or outcomes
	"written",        // and not on disk
	"committed",      // and nobody told
	"published",      // Publish is about to return
	"told",           // and the floor not raised
	"floor raised",   // and nothing sent
	"sent",           // and not answered
	"answered",       // and the outcome not on disk
}

// ledger is what the producer's processes have confirmed.
type ledger struct {
	t         *testing.T
	confirmed map[string]bool
	loose     map[int]int // publishes that may have been in progress, by round
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, confirmed: map[string]bool{}, loose: map[int]int{}}
}

func (l *ledger) add(round int, p *process) {
	for _, id := range p.confirmed {
		l.confirmed[id] = true
	}
	l.loose[round] = writers // each has at most one
}

// check compares it with what is stored: what was confirmed and at most what was in
// progress, each once, each key in order.
func (l *ledger) check(stored []string) {
	l.t.Helper()
	seen, last := map[string]bool{}, map[string]string{}
	for _, id := range stored {
		if seen[id] {
			l.t.Errorf("%s is stored twice", id)
		}
		seen[id] = true
		writer, _, _ := strings.Cut(id, "-")
		if id <= last[writer] {
			l.t.Errorf("%s is stored after %s", id, last[writer])
		}
		last[writer] = id
		if !l.confirmed[id] {
			var round int
			if _, err := fmt.Sscanf(id[strings.Index(id, "-")+1:][:3], "%d", &round); err != nil {
				l.t.Fatal(err)
			}
			if l.loose[round]--; l.loose[round] < 0 {
				l.t.Errorf("%s is stored, was not confirmed, and cannot have been in progress", id)
			}
		}
	}
	for id := range l.confirmed {
		if !seen[id] {
			l.t.Errorf("%s was confirmed and is not stored", id)
		}
	}
}

// finish sends what is left in the file and returns what is stored.
func finish(t *testing.T, cl *onceqtest.Cluster, c *client.Client, file string) []string {
	t.Helper()
	b := open(t, file, WithURL(cl.URL()))
	flush(t, b)
	if s := b.Stats(); s.Held != 0 {
		es, _ := b.Held(0, 10)
		t.Errorf("held: %+v", es)
	}
	shut(t, b)
	return stored(t, c)
}

// The producer's process dies at every step in turn, early and later, and the leader
// with every third.
func TestCrash_AtEveryStep_NothingIsLostNorStoredTwice(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 3, client.QueueSettings{})
	file := path(t)
	l := newLedger(t)
	round := 0
	for _, nth := range []int{1, 5, 40} {
		for _, step := range steps {
			if step == "session opened" && nth > 1 {
				continue // there is one in a life
			}
			round++
			p := startChild(t, job{URL: cl.URL(), File: file, Round: round, Each: 100, Step: step, Nth: nth})
			dead := -1
			if round%3 == 0 {
				p.read(func() bool { return len(p.confirmed) > 0 })
				dead = cl.KillLeader()
			}
			if !p.killed() {
				t.Errorf("%s, time %d: the process came to its end", step, nth)
			}
			l.add(round, p)
			if dead >= 0 {
				cl.Restart(dead)
			}
		}
	}
	got := finish(t, cl, c, file)
	l.check(got)
	if len(got) < 200 {
		t.Errorf("only %d messages in all: the processes died too early to tell", len(got))
	}
}

// A life that ends well leaves nothing behind.
func TestCrash_None_EverythingIsStored(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 1, client.QueueSettings{})
	file := path(t)
	p := startChild(t, job{URL: cl.URL(), File: file, Round: 1, Each: 20})
	if p.killed() {
		t.Fatal("the child was killed")
	}
	if len(p.confirmed) != writers*20 {
		t.Fatalf("%d confirmed", len(p.confirmed))
	}
	l := newLedger(t)
	l.add(1, p)
	got := stored(t, c)
	l.check(got)
	if len(got) != writers*20 {
		t.Errorf("%d messages", len(got))
	}
}

// Killed from outside, wherever it is, again and again, while the queue is nearly
// always full and leaders die.
func TestCrash_Anywhere_QueueOftenFull(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 3, client.QueueSettings{LengthMax: 150})
	file := path(t)
	l := newLedger(t)
	var got []string
	for round := 1; round <= 5; round++ {
		p := startChild(t, job{URL: cl.URL(), File: file, Round: round, Each: 1000})
		p.read(func() bool { return len(p.confirmed) >= 20*round })
		dead := -1
		if round%2 == 0 {
			dead = cl.KillLeader()
		}
		p.read(func() bool { return len(p.confirmed) >= 40*round })
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if !p.killed() {
			t.Error("the process came to its end")
		}
		l.add(round, p)
		if dead >= 0 {
			cl.Restart(dead)
		}
		if n := len(stored(t, c)); n > 30 {
			got = append(got, consume(t, c, n-30)...)
		}
	}
	b := open(t, file, WithURL(cl.URL()))
	got = append(got, consume(t, c, len(l.confirmed)-len(got))...)
	flush(t, b)
	got = append(got, stored(t, c)...)
	if s := b.Stats(); s.Held != 0 {
		t.Errorf("stats %+v", s)
	}
	l.check(got)
}
