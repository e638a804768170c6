package report

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"onceq/jepsen/check"
)

// Total is what several runs come to.
type Total struct {
	Verdict    check.Verdict // the worst
	Runs       int
	Count      map[check.Verdict]int
	Elapsed    time.Duration
	Messages   int
	Deliveries int
	Faults     []FaultTotal // whose effect was seen, by name
	Unseen     int          // faults without one
}

// FaultTotal is how often a kind of fault was made and had an effect.
type FaultTotal struct {
	Name  string
	Made  int
	Stall check.Stall // around those that had an effect
}

// StallTexts are the median and the worst stall for people.
func (f FaultTotal) StallTexts() (median, worst string) {
	if f.Stall.Faults == 0 {
		return "-", "-"
	}
	return fmt.Sprintf("%.2f s", f.Stall.Median), fmt.Sprintf("%.2f s", f.Stall.Worst)
}

// Sum sums up.
func Sum(rows []Row) Total {
	t := Total{Verdict: check.Valid, Runs: len(rows), Count: map[check.Verdict]int{}}
	made, stalls := map[string]int{}, map[string][]float64{}
	for _, r := range rows {
		t.Count[r.Verdict]++
		t.Elapsed += r.Elapsed
		t.Messages += r.Stats.Messages
		t.Deliveries += r.Stats.Deliveries
		for kind, n := range r.Stats.Faults {
			made[kind] += n
		}
		for _, n := range r.Stats.Unseen {
			t.Unseen += n
		}
		for kind, s := range r.Stats.Stalls {
			stalls[kind] = append(stalls[kind], s.Each...)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(made)) {
		f := FaultTotal{Name: kind, Made: made[kind]}
		if each := stalls[kind]; len(each) > 0 {
			f.Stall = check.NewStall(each)
		}
		t.Faults = append(t.Faults, f)
	}
	switch {
	case t.Count[check.Invalid] > 0:
		t.Verdict = check.Invalid
	case t.Count[check.Unknown] > 0:
		t.Verdict = check.Unknown
	}
	return t
}

// String is the sum in a sentence.
func (t Total) String() string {
	faults := 0
	for _, f := range t.Faults {
		faults += f.Made
	}
	return fmt.Sprintf("%d runs of %v: %d valid, %d invalid, %d unknown; %d faults with an effect and %d without, %d messages, %d deliveries",
		t.Runs, t.Elapsed.Round(time.Second), t.Count[check.Valid], t.Count[check.Invalid], t.Count[check.Unknown], faults, t.Unseen, t.Messages, t.Deliveries)
}
