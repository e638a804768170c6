package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceq/jepsen/history"
)

// least is how many histories each checker must be shown that it rejects, and
// how many near misses that it accepts.
const least = 3

func TestCheckers_RejectPlantedFaultsAndAcceptNearMisses(t *testing.T) {
	t.Parallel()
	for _, c := range Checkers() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			rejected, accepted := 0, 0
			for _, s := range sections(t, c.Name) {
				r := Run(s.events)
				switch s.verb {
				case "reject":
					rejected++
					if r.Counts[c.Name] == 0 || r.Verdict != Invalid {
						t.Errorf("%s: not rejected: %s %v", s.name, r.Verdict, r.Counts)
					}
				case "accept":
					accepted++
					if len(r.Counts) != 0 || r.Verdict == Invalid {
						t.Errorf("%s: rejected: %+v", s.name, r.Violations)
					}
				default:
					t.Fatalf("unknown verb %q", s.verb)
				}
			}
			if rejected < least || accepted < least {
				t.Errorf("%d histories to reject and %d to accept, at least %d of each prove a checker", rejected, accepted, least)
			}
		})
	}
}

func TestVerdict_UnknownWhenTooLittleHappened(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for _, s := range sections(t, "vacuity") {
		count[s.verb]++
		if r := Run(s.events); string(r.Verdict) != s.verb {
			t.Errorf("%s: %s (%v, %v), want %s", s.name, r.Verdict, r.Reasons, r.Violations, s.verb)
		}
	}
	if count["unknown"] < least || count["valid"] < least {
		t.Errorf("%v histories", count)
	}
}

func TestRun_AViolationNamesItsLinesAndTime(t *testing.T) {
	t.Parallel()
	events, err := history.ParseText("0 1 p1 publish a seq=0\n2 3 p2 publish a seq=7")
	if err != nil {
		t.Fatal(err)
	}
	r := Run(events)
	for _, v := range r.Violations {
		if v.Checker != "stored-twice" || v.ID != "a" {
			continue
		}
		if v.At == 3e6 && len(v.Lines) == 2 && events[v.Lines[0]].T1 == 1e6 && events[v.Lines[1]].T1 == 3e6 {
			return
		}
	}
	t.Errorf("violations %+v", r.Violations)
}

func TestRun_KeepsOnlySoManyOfAChecker(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 3 * violationsMax {
		fmt.Fprintf(&text, "%d %d c1 deliver x%d seq=%d attempt=1\n", i, i, i, i)
	}
	events, err := history.ParseText(text.String())
	if err != nil {
		t.Fatal(err)
	}
	r := Run(events)
	kept := 0
	for _, v := range r.Violations {
		if v.Checker == "phantom" {
			kept++
		}
	}
	if r.Counts["phantom"] != 3*violationsMax || kept != violationsMax {
		t.Errorf("counted %d, kept %d", r.Counts["phantom"], kept)
	}
}

type section struct {
	verb, name string
	events     []history.Event
}

func sections(t *testing.T, name string) []section {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []section
	for i, part := range strings.Split("\n"+string(b), "\n== ") {
		if i == 0 {
			continue
		}
		title, body, _ := strings.Cut(part, "\n")
		verb, what, _ := strings.Cut(title, " ")
		events, err := history.ParseText(body)
		if err != nil {
			t.Fatalf("%s: %v", title, err)
		}
		all = append(all, section{verb, what, events})
	}
	return all
}
