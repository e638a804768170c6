package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/proxy"
)

type proxyDirection = proxy.Direction

const (
	toServer = proxy.ToServer
	toClient = proxy.ToClient
)

const (
	calmLeast   = 1500 * time.Millisecond
	calmMost    = 4 * time.Second
	pairPercent = 25 // how often two kinds come together
)

// Run makes faults until ctx ends, with calm stretches between them, and heals
// all in the end. Each kind comes once before any comes again.
func (t *Target) Run(ctx context.Context, faults []Fault, seed uint64) {
	t.begin()
	defer t.Heal()
	r := rand.New(rand.NewPCG(seed, 7))
	number := 0
	var round []Fault
	next := func() Fault {
		if len(round) == 0 {
			round = append(round, faults...)
			r.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		}
		f := round[0]
		round = round[1:]
		return f
	}
	for ctx.Err() == nil {
		t.calm(ctx, between(r, calmLeast, calmMost))
		if ctx.Err() != nil || len(faults) == 0 {
			continue
		}
		made := []Fault{next()}
		if len(faults) > 1 && r.IntN(100) < pairPercent {
			if f := next(); f.Field == "" || f.Field != made[0].Field {
				made = append(made, f)
			} else {
				round = append(round, f) // later, and not beside its like
			}
		}
		var wg sync.WaitGroup
		seen := make([]bool, len(made))
		for i, f := range made {
			number++
			mine, chance := number, rand.New(rand.NewPCG(r.Uint64(), 1))
			wg.Go(func() { seen[i] = t.make(ctx, f, chance, mine) })
		}
		wg.Wait()
		for i, f := range made {
			if !seen[i] { // once more: two at a time can be in each other's way
				round = append(round, f)
			}
		}
		t.Heal()
	}
}

// begin is called before the first fault.
func (t *Target) begin() { t.taken = &claims{of: map[string]int{}} }

// make makes one fault and writes it down. It says whether it had an effect.
// number tells it from the others of the run.
func (t *Target) make(ctx context.Context, f Fault, r *rand.Rand, number int) bool {
	own := *t
	own.fault = number
	defer own.give()
	if t.Under != nil {
		t.Under(f.Name, true)
		defer t.Under(f.Name, false)
	}
	op := t.H.Invoke(history.Event{Proc: "nemesis", F: history.Fault, Key: f.Name})
	leader := t.Leader()
	op.Node, op.Seen, op.Text = f.run(ctx, &own, r)
	if op.Node != "" {
		op.Role = role(t.Cluster.Names(), op.Node, leader)
	}
	t.H.Complete(op, history.OK)
	if op.Seen && t.Seen != nil {
		t.Seen(f.Name)
	}
	return op.Seen
}

// role is what a member was when leader led, or "" nobody; "" is several nodes or none.
func role(members []string, node, leader string) string {
	switch {
	case !slices.Contains(members, node) || leader == "":
		return ""
	case node == leader:
		return history.Leading
	}
	return history.Following
}

// calm lasts for d, and begins when the cluster serves.
func (t *Target) calm(ctx context.Context, d time.Duration) {
	if !t.Serving(ctx) {
		return
	}
	op := t.H.Invoke(history.Event{Proc: "nemesis", F: history.Calm})
	wait(ctx, d)
	t.H.Complete(op, history.OK)
}
