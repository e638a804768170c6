package jepsen

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"onceq/jepsen/nemesis"
	"onceq/jepsen/workload"
)

// withoutRoot is a place as most people have one.
var withoutRoot = nemesis.Place{
	Nodes: 3, Hosts: errors.New("network namespaces need root"), FUSE: errors.New("a faulty disk needs root"),
}

func planOf(t *testing.T, w workload.Workload, place nemesis.Place, faults ...string) (plan, error) {
	t.Helper()
	return newPlan(&Config{Faults: faults, Seed: 1, Time: time.Minute, Nodes: place.Nodes}, w, place)
}

func TestPlan_WhatAPlaceCannotDo_IsLeftOutAndSaid(t *testing.T) {
	t.Parallel()
	faults := []string{"kill", "partition-one", "power-loss", "part-kill", "cut", "partition-ring"}
	for name, c := range map[string]struct {
		place        nemesis.Place
		made         []string
		leftOut      []string
		hosts, disks bool
	}{
		"without root": {
			withoutRoot, []string{"kill", "cut"},
			[]string{
				"partition-one: network namespaces need root",
				"power-loss: a faulty disk needs root",
				"part-kill: network namespaces need root; a faulty disk needs root",
				"partition-ring: network namespaces need root; 3 nodes are too few, it takes 4",
			}, false, false,
		},
		"without disks": {
			nemesis.Place{Nodes: 4, FUSE: withoutRoot.FUSE}, []string{"kill", "partition-one", "cut", "partition-ring"},
			[]string{"power-loss: a faulty disk needs root", "part-kill: a faulty disk needs root"}, true, false,
		},
		"with all": {nemesis.Place{Nodes: 4}, faults, nil, true, true},
	} {
		p, err := planOf(t, workload.Workload{}, c.place, faults...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(p.names(), c.made) || !slices.Equal(p.leftOut, c.leftOut) {
			t.Errorf("%s: it makes %q and leaves out\n%s", name, p.names(), strings.Join(p.leftOut, "\n"))
		}
		if p.hosts != c.hosts || p.disks != c.disks {
			t.Errorf("%s: network namespaces %v, faulty disks %v", name, p.hosts, p.disks)
		}
	}
}

// A mix draws from what can be made, so that it does not lose rounds to the rest.
func TestPlan_AMixHasNoRoundOfWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	p, err := planOf(t, workload.Workload{}, withoutRoot, "mix")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.rounds) == 0 || len(p.leftOut) == 0 || p.hosts || p.disks {
		t.Fatalf("%d rounds, left out %q, network namespaces %v, faulty disks %v", len(p.rounds), p.leftOut, p.hosts, p.disks)
	}
	for _, r := range p.rounds {
		for _, s := range r.Steps {
			if why := s.Fault.Missing(withoutRoot); why != "" {
				t.Errorf("%s is planned: %s", s.Fault.Name, why)
			}
		}
	}
}

// A run without any of the faults it was asked for would call itself valid.
func TestPlan_NothingCanBeMade_IsRefused(t *testing.T) {
	t.Parallel()
	if _, err := planOf(t, workload.Workload{}, withoutRoot, "partition-one", "power-loss"); err == nil || !strings.Contains(err.Error(), "a faulty disk needs root") {
		t.Errorf("the plan gives %v", err)
	}
	if p, err := planOf(t, workload.Workload{}, withoutRoot, "none"); err != nil || len(p.leftOut) > 0 {
		t.Errorf("without faults: %v, left out %q", err, p.leftOut)
	}
}

func TestPlan_AWorkloadOfTheNewestBuild_IsNotUpgraded(t *testing.T) {
	t.Parallel()
	place := nemesis.Place{Nodes: 3}
	if p, err := planOf(t, workload.Workload{}, place, "upgrade", "kill"); err != nil || !p.older || len(p.leftOut) > 0 {
		t.Errorf("an upgrade: %v, older %v, left out %q", err, p.older, p.leftOut)
	}
	p, err := planOf(t, workload.Workload{Name: "new", Newest: true}, place, "upgrade", "kill")
	if err != nil || p.older || len(p.leftOut) != 1 || !strings.Contains(p.leftOut[0], "upgrade: workload new") {
		t.Errorf("of the newest build: %v, older %v, left out %q", err, p.older, p.leftOut)
	}
}

// TestPlan_LittleMemory_IsDrawnByTheSeed: both happen, and a seed has always the same.
func TestPlan_LittleMemory_IsDrawnByTheSeed(t *testing.T) {
	t.Parallel()
	drawn := map[bool]int{}
	for seed := range uint64(100) {
		of := func() plan {
			p, err := newPlan(&Config{Faults: []string{"none"}, Seed: seed, Time: time.Minute, Nodes: 3}, workload.Workload{}, withoutRoot)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := of()
		if of().little != p.little {
			t.Fatalf("seed %d is drawn once so and once so", seed)
		}
		drawn[p.little]++
		args := strings.Join((&run{plan: p, cfg: Config{ServerArgs: []string{"--bodies", "memory"}}}).args(), " ")
		if strings.Contains(args, "--body-memory "+strconv.Itoa(littleMemory)) != p.little || !strings.HasSuffix(args, " --bodies memory") {
			t.Fatalf("seed %d, little memory %v: %s", seed, p.little, args)
		}
	}
	if drawn[true] < 20 || drawn[false] < 20 {
		t.Errorf("drawn: %v", drawn)
	}
}
