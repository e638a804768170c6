package nemesis

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"io"

	"onceq/jepsen/history"
)

// shape is what of a plan the seed decides.
func shape(rounds []Round) (all []string) {
	for _, r := range rounds {
		line := r.Calm.String() + " " + r.String()
		for _, s := range r.Steps {
			line += " " + s.After.String()
		}
		all = append(all, line)
	}
	return all
}

func TestMix_TheSeedDecides(t *testing.T) {
	t.Parallel()
	first, again, other := Mix(All(), 7, time.Hour, 3), Mix(All(), 7, time.Hour, 3), Mix(All(), 8, time.Hour, 3)
	if !reflect.DeepEqual(shape(first), shape(again)) {
		t.Error("the same seed gives two plans")
	}
	if first[0].Steps[0].Chance != again[0].Steps[0].Chance {
		t.Error("the same seed gives a fault another chance")
	}
	if reflect.DeepEqual(shape(first), shape(other)) {
		t.Error("another seed gives the same plan")
	}
	text := Describe(first)
	for i, r := range first {
		if !strings.Contains(strings.Split(text, "\n")[i], r.String()) {
			t.Fatalf("line %d does not tell %s:\n%s", i+1, r, text)
		}
	}
}

func TestMix_NeverTakesMoreNodesThanTheOthersCanDoWithout(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{3, 5, 7} {
		kinds, together := map[string]int{}, 0
		for _, r := range Mix(All(), uint64(nodes), 10*time.Hour, nodes) {
			away, fields := 0, map[string]bool{}
			for _, s := range r.Steps {
				kinds[s.Fault.Name]++
				away += s.Fault.Away.of(nodes)
				if f := s.Fault.Field; f != "" && fields[f] {
					t.Errorf("%d nodes: two of the field %s in %s", nodes, f, r)
				}
				fields[s.Fault.Field] = true
			}
			if len(r.Steps) > 1 {
				together++
				if away > (nodes-1)/2 {
					t.Errorf("%d nodes: %s takes %d away", nodes, r, away)
				}
			}
		}
		if together == 0 {
			t.Errorf("%d nodes: no two faults come together", nodes)
		}
		for _, f := range All() {
			if kinds[f.Name] == 0 {
				t.Errorf("%d nodes: %s never comes", nodes, f.Name)
			}
		}
		if kinds["kill"] < 2*kinds["pause-all"] {
			t.Errorf("%d nodes: kill comes %d times, pause-all %d: weights are nothing", nodes, kinds["kill"], kinds["pause-all"])
		}
	}
}

func TestRunMix_MakesTheRoundsAndHealsAfterEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heals, made := 0, atomic.Int32{}
		target := &Target{H: history.NewWriter(io.Discard), Serving: func(context.Context) bool { return true }, Leader: func() string { return "" }, heal: func() { heals++ }}
		f := Fault{Name: "f", run: func(ctx context.Context, _ *Target, _ *rand.Rand) (string, bool, string) {
			made.Add(1)
			wait(ctx, time.Second)
			return "", true, ""
		}}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		target.RunMix(ctx, []Round{{Steps: []Step{{Fault: f}, {Fault: f, After: time.Second}}}, {Steps: []Step{{Fault: f}}}})
		if made.Load() != 3 || heals < 2 {
			t.Errorf("%d faults were made, and healed %d times", made.Load(), heals)
		}
	})
}

func TestFault_MissingSaysWhy(t *testing.T) {
	t.Parallel()
	noRoot := Place{Nodes: 4, Hosts: context.Canceled, FUSE: context.Canceled, Clock: context.Canceled}
	for _, f := range All() {
		why := f.Missing(noRoot)
		if (f.Uses(NeedHosts) || f.Uses(NeedFUSE) || f.Uses(NeedClock)) != strings.Contains(why, context.Canceled.Error()) {
			t.Errorf("%s without namespaces: %q", f.Name, why)
		}
		if (f.Uses(NeedHosts) || f.Uses(NeedFUSE)) != strings.Contains(f.Requires(), "root") {
			t.Errorf("%s needs %q", f.Name, f.Requires())
		}
		if f.What == "" || f.Weight < 1 {
			t.Errorf("%s is told by %q, weight %d", f.Name, f.What, f.Weight)
		}
		if why := f.Missing(Place{Nodes: 9}); why != "" {
			t.Errorf("%s cannot be made where everything is: %s", f.Name, why)
		}
	}
	one := All()[slices.IndexFunc(All(), func(f Fault) bool { return f.Name == "pause-kill" })]
	if one.Missing(Place{Nodes: 1}) == "" {
		t.Error("one node has followers")
	}
}

func TestClaims_TwoFaultsAreNotAboutOneNode(t *testing.T) {
	t.Parallel()
	shared := &claims{of: map[string]int{}}
	a, b := &Target{taken: shared, fault: 1}, &Target{taken: shared, fault: 2}
	if !a.maybeTake("n1") {
		t.Error("n1 is free")
	}
	if !a.maybeTake("n1") || b.maybeTake("n1") || !b.maybeTake("n2") {
		t.Errorf("taken: %v", shared.of)
	}
	a.give()
	if !b.maybeTake("n1") {
		t.Error("n1 is not given back")
	}
}
