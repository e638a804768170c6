package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// step is one thing that is done to a cluster under traffic.
type step struct {
	after time.Duration // since the step before
	what  string
	node  int // leads stands for whoever leads then
	other int // draws a client, or the target of a transfer
	last  time.Duration
}

const leads = -1

// wall is a step of which other draws by how much the clock is ahead from then on.
const wall = "wall"

// disk is a step of which other draws how long an append to the log takes.
const disk = "disk"

// appendMost is how long, at most: the network, there and back, takes 40 ms when it is slow.
const appendMost = 200 * time.Millisecond

func appendOf(s step) time.Duration {
	return time.Duration(rand.New(rand.NewPCG(uint64(s.other), 18)).Int64N(int64(appendMost)))
}

// A wall clock goes wrong by so much.
const (
	wallAhead  = 48 * time.Hour
	wallBehind = 10 * 24 * time.Hour
)

// wallOf is by how much a step sets a wall clock wrong: mostly forward by minutes or hours
// or back by as much or days, sometimes by less than a lease, sometimes right again.
func wallOf(s step) time.Duration {
	r := rand.New(rand.NewPCG(uint64(s.other), 12))
	switch r.IntN(6) {
	case 0:
		return 0
	case 1:
		return time.Duration(r.Int64N(int64(time.Minute))) - 30*time.Second
	case 2, 3:
		return time.Duration(r.Int64N(int64(wallAhead)))
	}
	return -time.Duration(r.Int64N(int64(wallBehind)))
}

// whats are what a step can do, and how often it is drawn.
var whats = []struct {
	name   string
	weight int
	most   time.Duration // it lasts so long at most
}{
	{"kill", 30, 2 * time.Second},
	{"kill-all", 3, time.Second},
	{"stop", 8, 2 * time.Second},
	{"isolate", 10, 5 * time.Second}, // nobody reaches it
	{"minority", 8, 5 * time.Second}, // no node reaches it, clients do
	{"mute", 4, 4 * time.Second},     // no node hears it
	{"deaf", 4, 4 * time.Second},     // it hears no node
	{"transfer", 12, 0},
	{"reset", 12, 0},                     // a client's connections break
	{"lose", 14, 300 * time.Millisecond}, // what a client is answered is lost
	{"hold", 8, 3 * time.Second},         // what a client sends arrives late
	{"slow", 4, 3 * time.Second},
	{disk, 12, 3 * time.Second}, // an append takes long, and a kill loses it
	{wall, 16, 0},               // its wall clock jumps
}

// plan draws the steps of a seed.
func plan(seed uint64, steps, nodes int) []step {
	r := rand.New(rand.NewPCG(seed, 11))
	total := 0
	for _, w := range whats {
		total += w.weight
	}
	var all []step
	for range steps {
		n := r.IntN(total)
		i := 0
		for n >= whats[i].weight {
			n -= whats[i].weight
			i++
		}
		s := step{after: time.Duration(r.Int64N(int64(1200 * time.Millisecond))), what: whats[i].name, node: r.IntN(nodes), other: r.IntN(1 << 20)}
		if r.IntN(100) < 70 {
			s.node = leads
		}
		if m := whats[i].most; m > 0 {
			s.last = time.Duration(r.Int64N(int64(m)))
		}
		all = append(all, s)
	}
	return all
}

func (s step) String() string {
	node := fmt.Sprintf("n%d", s.node+1)
	if s.node == leads {
		node = "leader"
	}
	text := fmt.Sprintf("+%-8v %-9s", s.after.Round(time.Millisecond), s.what)
	switch s.what {
	case "kill-all", "reset", "slow", days:
	case "transfer":
		text += " to another"
	case wall:
		text += fmt.Sprintf(" %s to %+v", node, wallOf(s).Round(time.Second))
	case disk:
		text += fmt.Sprintf(" %s, %v an append", node, appendOf(s).Round(time.Millisecond))
	default:
		text += " " + node
	}
	if s.last > 0 {
		text += fmt.Sprintf(" for %v", s.last.Round(time.Millisecond))
	}
	return text
}

// keep takes the steps with the given numbers, from 0. The time of those left out
// goes to the next one, so that the rest comes when it came before.
func keep(all []step, numbers []int) []step {
	var kept []step
	next, gap := 0, time.Duration(0)
	for i, s := range all {
		if next < len(numbers) && numbers[next] == i {
			s.after += gap
			gap = 0
			kept = append(kept, s)
			next++
			continue
		}
		gap += s.after
	}
	return kept
}

// shrink looks for a smaller set of steps that still fails: it leaves out halves,
// quarters and so on, as long as that goes on failing.
func shrink(n int, fails func(numbers []int) bool) []int {
	var now []int
	for i := range n {
		now = append(now, i)
	}
	for size := (n + 1) / 2; size > 0; {
		smaller := false
		for at := 0; at < len(now); {
			try := append(append([]int(nil), now[:at]...), now[min(at+size, len(now)):]...)
			if fails(try) {
				now, smaller = try, true
				continue
			}
			at += size
		}
		if size == 1 && !smaller {
			break
		}
		if size > 1 {
			size /= 2
		}
	}
	return now
}

func numbersText(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, fmt.Sprint(n))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}
