// Package check judges histories. Each checker is a pure function of the
// history: it knows nothing of how the faults were made, and a file can be judged
// again at any time.
//
// Words: an id is a message as its producer made it. K are the ids with at
// least one publish answered ok, A those attempted. A grant is one delivery of
// an id under one attempt number.
//
// A checker that says "must not happen" has to be right about time. All times
// are the harness's, taken outside of the cluster: an operation took effect
// somewhere between t0 and t1, a grant was made some time before it was seen. So
// every comparison is made in the direction in which that uncertainty excuses
// the cluster. Epsilon, and the stretches in which the harness itself stood
// still, are added where durations are compared.
package check

import (
	"cmp"
	"fmt"
	"slices"

	"onceq/jepsen/history"
)

// Verdict is what a history shows.
type Verdict string

// The verdicts.
const (
	Valid   Verdict = "valid"
	Invalid Verdict = "invalid"
	Unknown Verdict = "unknown" // nothing wrong was seen, and too little was seen
)

// Violation is one promise that was seen broken.
type Violation struct {
	Checker string `json:"checker"`
	ID      string `json:"id,omitempty"`
	Text    string `json:"text"`
	At      int64  `json:"at"`    // when it showed, ns of the run
	Lines   []int  `json:"lines"` // of the history, for a reader
}

// Report is the judgement of one history.
type Report struct {
	Verdict    Verdict        `json:"verdict"`
	Violations []Violation    `json:"violations"` // at most violationsMax of each checker
	Counts     map[string]int `json:"counts"`     // all violations, by checker
	Reasons    []string       `json:"reasons,omitempty"`
	Stats      Stats          `json:"stats"`
}

// violationsMax bounds what is kept of one checker: a broken build breaks
// everything.
const violationsMax = 20

// Checker is one promise.
type Checker struct {
	Name string
	What string
	run  func(v *view, r *Report)
}

// Checkers are all checkers, in the order in which a reader wants to know.
func Checkers() []Checker {
	return []Checker{
		{"lost", "a confirmed message was neither handed out nor is it there", lost},
		{"phantom", "a message was handed out that nobody published, or that was definitely refused, or with another body", phantom},
		{"altered", "a message was handed out, also as a dead letter or after a restore, with another biz-id, other headers, another ordering key or another priority than it was published with", altered},
		{"stored-twice", "one id is stored under two offsets, or was confirmed as new twice", storedTwice},
		{"collision", "two ids have one offset", collision},
		{"wrong-dup", "a first copy was answered as a duplicate", wrongDup},
		{"refused", "an honest copy was refused as another body, for a lease that its first copy had ended, below the floor of its own producer, or its session as unknown", refused},
		{"reordered", "messages are stored or first handed out in another order than published", reordered},
		{"key-order", "a message was handed out while an earlier one of its ordering key was not done or another was held, or those of a key that were given up were sent back to work in another order", keyOrder},
		{"zombie", "a message was handed out after its ack was answered ok", zombie},
		{"no-cause", "a message was handed out again although nobody gave it back, no lease ran out and no consumer ended", withoutCause},
		{"two-holders", "two consumers held a message at one time", twoHolders},
		{"wrong-lost", "a settle was answered that its lease is lost, and nothing had taken it", wrongLost},
		{"untold", "a handler did not hear that its lease was over, or heard it and its ack was ok", untold},
		{"stale-ack", "an ack of an older attempt was accepted, or two attempts were acked", staleAck},
		{"attempts", "the attempt number of a message did not count up", attempts},
		{"credit", "a consumer was handed more at a time than it had said that it takes", credit},
		{"fenced", "an owner of a named session that was replaced stored something or took it back", fenced},
		{"stale-look", "a look at the outcome of a publish denied what had been answered before it was asked", staleLook},
		{"linearizable", "no order of the operations on one message explains their answers", linearizable},
		{"early", "a message was handed out before its time", early},
		{"expired", "a message was too old before its time, was handed out long after it, or is gone without being counted", expired},
		{"priority", "a message was handed out before one of higher priority that was there", priority},
		{"torn", "an ack with an output was carried out by half", torn},
		{"resume", "a consumer that attached again was not told the truth, or was sent what it had", resume},
		{"undead", "a message was handed out that had been purged or deleted, or from a queue that was paused", undead},
		{"dead", "a message became a dead letter too early, too late, twice or without a reason", dead},
		{"single", "a queue with a single active consumer had two", single},
		{"members", "a server that was removed votes again, a node votes twice, or more than one node is away", members},
		{"restored", "a copy from before a restore was stored or wrongly confirmed, or a restore lost or doubled a message", restored},
		{"counts", "the counts of a queue do not add up", counts},
		{"digest", "two nodes differ at one index", digests},
		{"regress", "a node's applied index went back while it ran", regress},
		{"leaders", "two nodes led in one term", leaders},
		{"crash", "a node ended by itself, without a reason or for a wrong one", crash},
		{"went-on", "a node went on with a disk that had failed it, or with damaged files", wentOn},
		{"verify", "the files of a node that had ended in order are not in order", verify},
		{"stuck", "nothing was broken, and for a minute nothing got done", stuck},
		{"asleep", "a client whose process had been stopped stored nothing or was handed nothing when it went on, or left a publish without an answer", asleep},
		{"drain", "the queues could not be drained after everything was healed", drain},
		{"rejoined", "nothing was broken, and a minute later a node that was healed or started was not back with what the others have", rejoined},
		{"bounded", "a minute after everything was drained a node had more on disk or in memory than its settings explain", bounded},
	}
}

// Run judges a history.
func Run(events []history.Event) *Report {
	r := &Report{Counts: map[string]int{}}
	v := newView(events)
	r.Stats = v.stats()
	for _, c := range Checkers() {
		c.run(v, r)
	}
	vacuity(v, r)
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	switch {
	case len(r.Counts) > 0:
		r.Verdict = Invalid
	case len(r.Reasons) > 0:
		r.Verdict = Unknown
	default:
		r.Verdict = Valid
	}
	return r
}

// broken reports a violation that shows in the given events, the last of which
// is when it showed.
func (r *Report) broken(checker, id string, seen []op, format string, args ...any) {
	r.Counts[checker]++
	if r.Counts[checker] > violationsMax {
		return
	}
	v := Violation{Checker: checker, ID: id, Text: fmt.Sprintf(format, args...)}
	for _, o := range seen {
		v.Lines = append(v.Lines, o.I)
		v.At = max(v.At, o.T0, o.T1)
	}
	r.Violations = append(r.Violations, v)
}

func (r *Report) unknown(format string, args ...any) {
	r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
}
