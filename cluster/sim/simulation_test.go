package sim

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/jepsen/raw"
	"onceq/jepsen/workload"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "first seed of the simulation; 0 for one by the clock")
	simRuns  = flag.Int("sim.runs", 0, "trials of the simulation with seeds that follow each other; 0 for one of each of a few workloads")
	simSteps = flag.Int("sim.steps", 30, "steps of a trial")
	simRate  = flag.Int("sim.rate", 60, "publishes a second of virtual time")
	simLoad  = flag.String("sim.load", "", "workload of all trials; empty for one after the other")
	simKeep  = flag.String("sim.keep", "", "numbers of the steps to keep, as a shrunk schedule tells them; empty for all")
)

type rawDialer = raw.Dialer

// simTries is how often a schedule is run to say that it does not fail. A seed
// decides the schedule and the traffic, not how goroutines take turns.
const simTries = 3

// simInstalls trials have a follower that is sent a snapshot, and a wall clock that jumps.
const simInstalls = 20

// TestSimulation runs seeded schedules of faults over real nodes and clients in
// virtual time, and judges what clients saw with the checkers of the suite of
// processes. A schedule that fails is shrunk, and printed with the command that
// runs it again.
func TestSimulation(t *testing.T) {
	loads := simLoads()
	seed, runs := *simSeed, *simRuns
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	if runs == 0 {
		runs = 2
	}
	t.Logf("seeds %d to %d", seed, seed+uint64(runs)-1)
	began, virtual, failovers, jumps, installs, messages := time.Now(), time.Duration(0), 0, 0, uint64(0), 0
	for i := range runs {
		s := seed + uint64(i)
		load := *simLoad
		if load == "" {
			load = loads[s%uint64(len(loads))]
		}
		steps := plan(s, *simSteps, trialNodes)
		numbers := keptNumbers(t, *simKeep, len(steps))
		t.Logf("seed %d, workload %s", s, load)
		out := trial(t, load, s, *simRate, keep(steps, numbers))
		virtual += out.virtual
		failovers += out.failovers
		installs += out.installs
		jumps += out.jumps
		messages += out.stats.Messages
		if len(out.broken) > 0 {
			t.Errorf("workload %s, seed %d: %s", load, s, strings.Join(out.broken[:min(len(out.broken), 5)], "\n\t"))
			t.Error(shrunk(t, load, s, steps, numbers))
			return
		}
		if out.stats.Publishes["ok"] == 0 || out.stats.Deliveries == 0 {
			t.Errorf("workload %s, seed %d: nothing happened: %+v", load, s, out.stats)
		}
	}
	if installs == 0 && runs >= simInstalls {
		t.Errorf("no snapshot was sent in %d trials", runs)
	}
	if jumps == 0 && runs >= simInstalls {
		t.Errorf("no wall clock jumped in %d trials", runs)
	}
	took := time.Since(began)
	t.Logf("%d trials, %d messages, %d failovers, %d jumps of wall clocks, %d snapshots sent, %v of virtual time in %v: %.0f failovers a minute, %.0f times real time",
		runs, messages, failovers, jumps, installs, virtual.Round(time.Second), took.Round(time.Millisecond), float64(failovers)/took.Minutes(), virtual.Seconds()/took.Seconds())
}

// simLoads are the workloads that trials take turns with.
func simLoads() []string {
	var names []string
	for _, w := range workload.All() {
		if !w.Apart {
			names = append(names, w.Name)
		}
	}
	return names
}

func TestTrial_EachWorkload_RunsInVirtualTimeOrSaysThatItCannot(t *testing.T) {
	t.Parallel()
	// Some publish in bursts, the first after 5 s.
	calm := []step{{after: 6 * time.Second, what: "slow"}}
	for _, w := range workload.All() {
		t.Run(w.Name, func(t *testing.T) {
			t.Parallel()
			out := trial(t, w.Name, 1, *simRate, calm)
			switch {
			case w.Apart:
				if len(out.broken) != 1 || !strings.Contains(out.broken[0], "has processes of its own") {
					t.Errorf("broken %q", out.broken)
				}
			case len(out.broken) > 0:
				t.Errorf("broken without a fault: %q", out.broken)
			case out.stats.Publishes["ok"] == 0 || out.stats.Deliveries == 0:
				t.Errorf("nothing happened: %+v", out.stats)
			}
		})
	}
}

// TestTraffic_TheClusterIsGoneForGood_EachWorkloadEnds: a run goes on to its verdict, also
// when the nodes have ended by themselves and nobody starts them again.
func TestTraffic_TheClusterIsGoneForGood_EachWorkloadEnds(t *testing.T) {
	t.Parallel()
	const most = 30 * time.Minute // of virtual time
	for _, w := range workload.All() {
		if w.Apart {
			continue
		}
		t.Run(w.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := &running{rec: &recorder{TB: t}, load: w.Name, seed: 1, rate: *simRate}
				_, admin, traffic, presence := tr.begin(&bytes.Buffer{})
				defer tr.w.Close()
				defer admin.Close()
				defer presence.Finish()
				time.Sleep(3 * time.Second)
				for _, n := range tr.w.Nodes {
					tr.w.Kill(n)
				}
				time.Sleep(3 * time.Second)
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					traffic.Stop()
				}()
				select {
				case <-ended:
				case <-time.After(most):
					t.Errorf("the traffic has not ended %v after the cluster", most)
					tr.w.Start(tr.w.Nodes...) // so that it can
					<-ended
				}
			})
		})
	}
}

func keptNumbers(t *testing.T, text string, n int) []int {
	t.Helper()
	var numbers []int
	switch text {
	case "":
		for i := range n {
			numbers = append(numbers, i)
		}
	case "none":
	default:
		for _, w := range strings.Split(text, ",") {
			k, err := strconv.Atoi(w)
			if err != nil || k < 0 || k >= n {
				t.Fatalf("%q is not the number of a step: 0 to %d are", w, n-1)
			}
			numbers = append(numbers, k)
		}
		slices.Sort(numbers)
	}
	return numbers
}

// shrunk makes a failing schedule smaller and says how to run it again.
func shrunk(t *testing.T, load string, seed uint64, steps []step, numbers []int) string {
	var last outcome
	small := shrink(len(numbers), func(try []int) bool {
		for range simTries {
			if out := trial(t, load, seed, *simRate, keep(steps, pick(numbers, try))); len(out.broken) > 0 {
				last = out
				return true
			}
		}
		return false
	})
	small = pick(numbers, small)
	var b strings.Builder
	fmt.Fprintf(&b, "shrunk to %d of %d steps:\n", len(small), len(numbers))
	for i, s := range keep(steps, small) {
		fmt.Fprintf(&b, "\t%3d  %v\n", small[i], s)
	}
	for _, text := range last.broken[:min(len(last.broken), 5)] {
		fmt.Fprintf(&b, "\t%s\n", text)
	}
	fmt.Fprintf(&b, "again: go test ./cluster/sim -run TestSimulation -sim.seed=%d -sim.runs=1 -sim.load=%s -sim.steps=%d -sim.rate=%d -sim.keep=%s",
		seed, load, *simSteps, *simRate, numbersText(small))
	return b.String()
}

func pick(numbers, which []int) []int {
	var picked []int
	for _, i := range which {
		picked = append(picked, numbers[i])
	}
	return picked
}

func TestShrink_FindsTheStepsThatMatter(t *testing.T) {
	t.Parallel()
	for _, needed := range [][]int{{}, {0}, {29}, {3, 17}, {1, 2, 3, 28}} {
		calls := 0
		got := shrink(30, func(numbers []int) bool {
			calls++
			for _, n := range needed {
				if !slices.Contains(numbers, n) {
					return false
				}
			}
			return true
		})
		if !slices.Equal(got, needed) || calls > 200 {
			t.Errorf("needed %v: shrunk to %v with %d trials", needed, got, calls)
		}
	}
}

func TestKeep_TheRestComesWhenItCameBefore(t *testing.T) {
	t.Parallel()
	all := plan(7, 10, trialNodes)
	when := func(steps []step, n int) (sum time.Duration) {
		for _, s := range steps[:n+1] {
			sum += s.after
		}
		return sum
	}
	kept := keep(all, []int{2, 3, 9})
	if len(kept) != 3 || when(kept, 0) != when(all, 2) || when(kept, 1) != when(all, 3) || when(kept, 2) != when(all, 9) {
		t.Errorf("kept %v of %v", kept, all)
	}
}

func TestPlan_ASeedDrawsTheSameSteps(t *testing.T) {
	t.Parallel()
	if a, b := plan(3, 40, 3), plan(3, 40, 3); !slices.Equal(a, b) || slices.Equal(a, plan(4, 40, 3)) {
		t.Error("the steps of a seed differ, or those of two do not")
	}
}
