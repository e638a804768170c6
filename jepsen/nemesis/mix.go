package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	togetherMost = 3               // kinds in one round of a mix
	alonePercent = 40              // rounds with one kind only
	afterMost    = 2 * time.Second // between the first and the last of a round
	roundLeast   = time.Second     // for how long a mix is planned: shorter than any fault lasts
)

// Round is a part of a mix: calm, and then faults that overlap.
type Round struct {
	Calm  time.Duration
	Steps []Step
}

// Step is one fault of a round.
type Step struct {
	Fault  Fault
	After  time.Duration // since the round's calm was over
	Chance uint64        // what the fault draws from
}

// String is a round in words.
func (r Round) String() string {
	var all []string
	for _, s := range r.Steps {
		all = append(all, s.Fault.Name)
	}
	return strings.Join(all, "+")
}

// Mix draws the rounds of a run of length d: by weight, alone or together, so that
// never more nodes are away than the others can do without. The same seed gives
// the same rounds.
func Mix(faults []Fault, seed uint64, d time.Duration, nodes int) []Round {
	r := rand.New(rand.NewPCG(seed, 11))
	var rounds []Round
	for planned := time.Duration(0); planned < d && len(faults) > 0; {
		round := Round{Calm: between(r, calmLeast, calmMost)}
		n := 1
		if r.IntN(100) >= alonePercent {
			n = 2 + r.IntN(togetherMost-1)
		}
		for range n {
			f, ok := draw(r, faults, round.Steps, nodes)
			if !ok {
				break
			}
			after := time.Duration(0)
			if len(round.Steps) > 0 {
				after = between(r, 0, afterMost)
			}
			round.Steps = append(round.Steps, Step{f, after, r.Uint64()})
		}
		rounds = append(rounds, round)
		planned += round.Calm + roundLeast
	}
	return rounds
}

// draw draws a fault that may come together with others, by weight.
func draw(r *rand.Rand, faults []Fault, with []Step, nodes int) (Fault, bool) {
	sum := 0
	for _, f := range faults {
		if fits(f, with, nodes) {
			sum += max(f.Weight, 1)
		}
	}
	if sum == 0 {
		return Fault{}, false
	}
	x := r.IntN(sum)
	for _, f := range faults {
		if !fits(f, with, nodes) {
			continue
		}
		if x -= max(f.Weight, 1); x < 0 {
			return f, true
		}
	}
	return Fault{}, false // not reached: x was below the sum
}

// fits says whether a fault may come together with others.
func fits(f Fault, with []Step, nodes int) bool {
	away := f.Away.of(nodes)
	for _, s := range with {
		if s.Fault.Name == f.Name || f.Field != "" && s.Fault.Field == f.Field {
			return false
		}
		away += s.Fault.Away.of(nodes)
	}
	return len(with) == 0 || away <= Minority.of(nodes)
}

// RunMix makes the rounds one after the other until ctx ends, and heals after each.
func (t *Target) RunMix(ctx context.Context, rounds []Round) {
	t.begin()
	defer t.Heal()
	for n, round := range rounds {
		t.calm(ctx, round.Calm)
		if ctx.Err() != nil {
			return
		}
		var wg sync.WaitGroup
		for i, s := range round.Steps {
			wg.Go(func() {
				if wait(ctx, s.After) {
					t.make(ctx, s.Fault, rand.New(rand.NewPCG(s.Chance, 1)), n*togetherMost+i)
				}
			})
		}
		wg.Wait()
		t.Heal()
	}
}

// Describe is the plan of a mix in lines, for people.
func Describe(rounds []Round) string {
	var b strings.Builder
	for i, r := range rounds {
		fmt.Fprintf(&b, "%3d. calm %.1f s, %s", i+1, r.Calm.Seconds(), r)
		for _, s := range r.Steps {
			if s.After > 0 {
				fmt.Fprintf(&b, " (%s after %.1f s)", s.Fault.Name, s.After.Seconds())
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
