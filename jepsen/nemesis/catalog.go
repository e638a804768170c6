package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Fault is one kind of fault.
type Fault struct {
	Name string
	What string
	// Needs is what a run must have for it.
	Needs []Need
	// Away is how many nodes the others do without meanwhile.
	Away Away
	// Field is what it works on. Two faults of one field never come together, since
	// one would heal what the other broke; "" is free.
	Field string
	// Weight is how often it comes in a mix, compared with others.
	Weight int
	// run breaks and heals. node is whom it was about, seen says that its effect was
	// observed, text what it was.
	run func(ctx context.Context, t *Target, r *rand.Rand) (node string, seen bool, text string)
}

// Need is what a fault cannot do without.
type Need string

// The needs.
const (
	NeedHosts  Need = "root" // network namespaces
	NeedFUSE   Need = "root, FUSE"
	NeedClock  Need = "Linux on amd64"
	NeedLimits Need = "Linux"
	NeedOlder  Need = "an older build" // that the nodes begin with; any run that can build onceq has it
	NeedThree  Need = "3 nodes"        // at least
	NeedFour   Need = "4 nodes"
	NeedSpare  Need = "one more" // a node that is no member yet; any run can have it
)

// Away is how many nodes a fault takes away from the others at one time.
type Away int

// The numbers of nodes. A minority is one less than half of them.
const (
	Nobody Away = iota
	One
	Minority
	Majority // or all: nobody serves meanwhile
)

// of is the number of nodes among n.
func (a Away) of(n int) int {
	return []int{0, 1, (n - 1) / 2, n}[a]
}

// The fields.
const (
	fieldNetwork = "network"
)

// All are the faults there are.
func All() []Fault {
	return slices.Concat(processFaults(), memberFaults(), clientFaults(), networkFaults(), diskFaults(), damageFaults(), clockFaults(), limitFaults())
}

func processFaults() []Fault {
	return []Fault{
		{Name: "kill", What: "kill -9 of a node, mostly the leader, and restart", Away: One, Weight: 4, run: kill},
		{Name: "kill-majority", What: "kill -9 of a majority at once, and restart in any order", Needs: []Need{NeedThree}, Away: Majority, Weight: 1, run: killMajority},
		{Name: "restart-all", What: "kill -9 of all nodes at once, and restart in any order", Away: Majority, Weight: 1, run: restartAll},
		{Name: "stop", What: "a node ends in order (SIGTERM), and restart", Away: One, Weight: 2, run: stop},
		{Name: "pause", What: "a node, mostly the leader, stands still (SIGSTOP) and goes on", Away: One, Weight: 3, run: pause},
		{Name: "pause-long", What: "the leader stands still for longer than anybody waits, and goes on", Away: One, Weight: 1, run: pauseLong},
		{Name: "starve", What: "a node, mostly the leader, gets a tenth of the processor's time", Away: One, Weight: 2, run: starve},
		{Name: "pause-majority", What: "a majority stands still and goes on", Needs: []Need{NeedThree}, Away: Majority, Weight: 1, run: pauseMajority},
		{Name: "pause-all", What: "all nodes stand still and go on", Away: Majority, Weight: 1, run: pauseAll},
		{Name: "pause-kill", What: "all followers stand still, the leader is killed with what only it has, the followers go on", Needs: []Need{NeedThree}, Away: Majority, Weight: 1, run: pauseKill},
	}
}

func clientFaults() []Fault {
	return []Fault{
		{Name: "lost-reply", What: "exactly the replies to requests whose effect lasts (publishes, settles, receives, seals, commands on queues ...) get lost, with their connections", Weight: 4, run: lostReply},
		{Name: "refuse", What: "single frames of publishes are answered \"not now\" and kept from the node, while what was sent behind them goes through", Weight: 2, run: refuse},
		{Name: "cut", What: "connections of clients are reset", Weight: 3, run: cut},
		{Name: "garble", What: "bits of what clients and nodes send each other are flipped", Weight: 2, run: garble},
		{Name: "hold", What: "a direction between clients and a node stalls, goes on or is cut", Field: fieldClients, Weight: 2, run: hold},
		{Name: "delay", What: "a node's links to clients are slow", Field: fieldClients, Weight: 2, run: delay},
		{Name: "unreachable", What: "no client reaches the leader; the nodes do", Field: fieldClients, Weight: 2, run: unreachable},
		{Name: "half-open", What: "clients lose their connections, and come back before the node notices that the old ones are gone", Field: fieldClients, Weight: 2, run: halfOpen},
	}
}

// fieldClients is what is between clients and nodes.
const fieldClients = "clients"

// Find finds faults by name; "all" is all, "none" is none. "mix" says that they
// come as Mix says; alone it stands for all.
func Find(names []string) (found []Fault, mix bool, err error) {
	names = slices.Clone(names)
	if i := slices.Index(names, "mix"); i >= 0 {
		names, mix = slices.Delete(names, i, i+1), true
		if len(names) == 0 {
			names = []string{"all"}
		}
	}
	all := All()
	if slices.Equal(names, []string{"all"}) {
		return all, mix, nil
	}
	for _, n := range names {
		if n == "none" || n == "" {
			continue
		}
		i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == n })
		if i < 0 {
			return nil, false, fmt.Errorf("no fault %q", n)
		}
		found = append(found, all[i])
	}
	return found, mix, nil
}

// Place is where a run happens: what of the needs there is.
type Place struct {
	Nodes  int
	Hosts  error // why there are no network namespaces, nil if there are
	FUSE   error // why there are no faulty disks, nil if there are
	Clock  error // why no clock can be moved, nil if it can
	Limits error // why no process can be limited, nil if it can
	Older  error // why nodes cannot begin with an older build, nil if they can
}

// Missing says why a fault cannot be made there, "" if it can.
func (f Fault) Missing(p Place) string {
	var why []string
	for _, n := range f.Needs {
		switch n {
		case NeedHosts:
			if p.Hosts != nil {
				why = append(why, p.Hosts.Error())
			}
		case NeedFUSE:
			if p.FUSE != nil {
				why = append(why, p.FUSE.Error())
			}
		case NeedClock:
			if p.Clock != nil {
				why = append(why, p.Clock.Error())
			}
		case NeedLimits:
			if p.Limits != nil {
				why = append(why, p.Limits.Error())
			}
		case NeedOlder:
			if p.Older != nil {
				why = append(why, p.Older.Error())
			}
		case NeedThree:
			why = append(why, p.fewer(3)...)
		case NeedFour:
			why = append(why, p.fewer(4)...)
		}
	}
	return strings.Join(why, "; ")
}

func (p Place) fewer(least int) []string {
	if p.Nodes >= least {
		return nil
	}
	return []string{fmt.Sprintf("%d nodes are too few, it takes %d", p.Nodes, least)}
}

// Uses says whether a fault needs something.
func (f Fault) Uses(n Need) bool { return slices.Contains(f.Needs, n) }

// Requires is what a fault needs, for people.
func (f Fault) Requires() string {
	var all []string
	for _, n := range f.Needs {
		all = append(all, string(n))
	}
	return strings.Join(all, ", ")
}
