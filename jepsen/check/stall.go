package check

import (
	"slices"
	"time"

	"onceq/jepsen/history"
)

// faultKind is the kind of a fault and, where it was about one node, what that was:
// the death of a leader and that of a follower have little in common.
func faultKind(f op) string {
	if f.Role == "" {
		return f.Key
	}
	return f.Key + " " + f.Role
}

// Stall is for how long no publish was confirmed around the faults of one kind.
type Stall struct {
	Faults int       `json:"faults"`
	Median float64   `json:"median_seconds"`
	Worst  float64   `json:"worst_seconds"`
	Each   []float64 `json:"each_seconds"` // in order
}

// NewStall is of stalls in any order, of one at least. It sorts them.
func NewStall(each []float64) Stall {
	slices.Sort(each)
	return Stall{len(each), each[len(each)/2], each[len(each)-1], each}
}

// stalls measures, for each fault that had an effect, the longest time without a
// confirmed publish that overlaps it. A fault beside another has the stall of
// both; one before or after which nothing was confirmed has none: 0 would be the
// opposite of what it was. confirmed are the times at which publishes were confirmed, in order.
func (v *view) stallsBy(confirmed []int64) map[string]Stall {
	longest := map[string][]float64{}
	for _, f := range v.faults {
		if !f.Seen || f.Type != history.OK {
			continue
		}
		// From the last one before the fault to the first one after it.
		from, _ := slices.BinarySearch(confirmed, f.T0)
		if from == 0 || confirmed[len(confirmed)-1] < f.T1 {
			continue
		}
		worst := int64(0)
		for i := from; i < len(confirmed) && confirmed[i-1] < f.T1; i++ {
			worst = max(worst, confirmed[i]-confirmed[i-1])
		}
		kind := faultKind(f)
		longest[kind] = append(longest[kind], time.Duration(worst).Seconds())
	}
	all := map[string]Stall{}
	for kind, s := range longest {
		all[kind] = NewStall(s)
	}
	return all
}
