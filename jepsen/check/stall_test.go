package check

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"onceq/jepsen/history"
)

func TestStalls_AreMeasuredAroundEachFaultThatHadAnEffect(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i, ms := range []int{0, 100, 200, 1200, 1300, 1400, 4400, 4500, 9500} {
		fmt.Fprintf(&b, "%d %d p1 publish m%d seq=%d\n", ms, ms, i, i)
	}
	b.WriteString(`
		250 900 nemesis fault key=kill seen
		1350 4450 nemesis fault key=kill seen
		1310 1320 nemesis fault key=kill seen role=leader
		5000 5001 nemesis fault key=pause
		4450 4460 nemesis fault key=transfer seen
		9600 9700 nemesis fault key=cut seen`) // nothing was confirmed after it
	events, err := history.ParseText(b.String())
	if err != nil {
		t.Fatal(err)
	}
	stats := Run(events).Stats
	if want := map[string]int{"kill": 2, "kill leader": 1, "transfer": 1, "cut": 1}; !reflect.DeepEqual(stats.Faults, want) || stats.Unseen["pause"] != 1 {
		t.Errorf("faults %v, unseen %v; want %v, and a pause", stats.Faults, stats.Unseen, want)
	}
	got := stats.Stalls
	want := map[string]Stall{
		"kill":        {Faults: 2, Median: 3, Worst: 3, Each: []float64{1, 3}},
		"kill leader": {Faults: 1, Median: 0.1, Worst: 0.1, Each: []float64{0.1}},
		"transfer":    {Faults: 1, Median: 0.1, Worst: 0.1, Each: []float64{0.1}},
	}
	if len(got) != len(want) {
		t.Errorf("stalls of %v", got)
	}
	for kind, w := range want {
		if !reflect.DeepEqual(got[kind], w) {
			t.Errorf("%s: %+v, want %+v", kind, got[kind], w)
		}
	}
}
