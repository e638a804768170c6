package report

import (
	"fmt"
	"math"
	"slices"
	"time"

	"onceq/jepsen/history"
)

// nodeClasses colour the lines of nodes; the fifth is like the first.
var nodeClasses = []string{"ok", "deliver", "ack", "bad"}

// sizesStale is for how long what was measured is shown: longer than to the next time.
const sizesStale = int64(3 * time.Second)

// sizes draws what each node takes of something over time, in MiB. 0 is a gap: nobody
// could tell.
func sizes(s scale, events []history.Event, label string, of func(b history.Bytes) uint64) chart {
	byNode := map[string][]float64{}
	var nodes []string
	for _, e := range events {
		if e.F != history.Sizes || e.Sizes == nil {
			continue
		}
		values := byNode[e.Node]
		if values == nil {
			nodes = append(nodes, e.Node)
			values = slices.Repeat([]float64{math.NaN()}, s.buckets())
			byNode[e.Node] = values
		}
		v := float64(of(*e.Sizes)) / (1 << 20)
		if v == 0 {
			v = math.NaN()
		}
		last := min(int((e.T1+sizesStale)/s.bucket), len(values)-1)
		for i := int(e.T1 / s.bucket); i <= last; i++ {
			values[i] = v // until the next one says otherwise
		}
	}
	slices.Sort(nodes)
	var all []series
	for i, n := range nodes {
		all = append(all, series{nodeClasses[i%len(nodeClasses)], n, byNode[n]})
	}
	return s.chart(s.frame(s.lines(all, " MiB", linear, linearTicks), label, head+height), all)
}

func resident(s scale, events []history.Event) chart {
	return sizes(s, events, "memory", func(b history.Bytes) uint64 { return b.Resident })
}

// onDisk is without the ballast, which says nothing.
func onDisk(s scale, events []history.Event) chart {
	return sizes(s, events, "disk", func(b history.Bytes) uint64 { return b.Disk() - b.Ballast })
}

// most is what a node had at most of both, for a row.
func most(events []history.Event) string {
	var memory, disk uint64
	for _, e := range events {
		if e.F == history.Sizes && e.Sizes != nil {
			memory, disk = max(memory, e.Sizes.Peak), max(disk, e.Sizes.Disk()-e.Sizes.Ballast)
		}
	}
	return fmt.Sprintf("%d MiB, %d MiB", memory>>20, disk>>20)
}
