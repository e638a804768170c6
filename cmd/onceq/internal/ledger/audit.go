package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Kind is a promise that a finding breaks.
type Kind string

// The kinds of findings.
const (
	LostMessage   Kind = "lost"            // confirmed, and never delivered or never acked
	StoredTwice   Kind = "stored twice"    // one id at two places
	Misplaced     Kind = "misplaced"       // delivered from another place than was confirmed
	Ghost         Kind = "ghost"           // delivered, but never published, or refused, or sealed
	Damaged       Kind = "damaged"         // another body than was published
	Redelivered   Kind = "redelivered"     // again without a reason, or after its ack
	LeaseTaken    Kind = "lease taken"     // from a consumer that was alive
	Uncounted     Kind = "counters differ" // the machine's counters contradict what was seen
	DigestsDiffer Kind = "digests differ"  // the nodes do not agree
	NotFinished   Kind = "not finished"    // the run cannot be judged
)

// Finding is one broken promise.
type Finding struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

// Report is the balance of a run.
type Report struct {
	Published     uint64 `json:"published"` // ids
	Confirmed     uint64 `json:"confirmed"`
	Unknown       uint64 `json:"unknown"`
	Sealed        uint64 `json:"sealed"`
	Refused       uint64 `json:"refused"`
	Retransmitted uint64 `json:"retransmitted"` // copies beyond the first
	Duplicates    uint64 `json:"duplicates"`    // confirmed by an earlier copy's record, as the producers saw
	DupRefused    uint64 `json:"dup_refused"`   // copies answered from the record, as the machine counted
	Stored        uint64 `json:"stored"`        // machine
	Delivered     uint64 `json:"delivered"`     // seen by consumers
	Acked         uint64 `json:"acked"`         // machine
	Nacked        uint64 `json:"nacked"`        // machine: redelivered because of a nack
	Expired       uint64 `json:"expired"`       // machine: redelivered because the lease ran out
	Gone          uint64 `json:"gone"`          // machine: redelivered because the consumer was given up
	Left          uint64 `json:"left"`          // machine: given back in order by a consumer that ended
	Lost          uint64 `json:"lost"`          // ids
	Nodes         int    `json:"nodes"`
	DigestsAgree  int    `json:"digests_agree"` // nodes whose digest is the leader's

	// Findings holds the first FindingsMax; Count has all of them by kind.
	Findings []Finding    `json:"findings,omitempty"`
	Count    map[Kind]int `json:"count,omitempty"`
	Excused  string       `json:"excused,omitempty"` // a note on leases that were taken while the consumers stood still
}

// FindingsMax bounds the findings that are kept in words.
const FindingsMax = 20

// Balanced says that no promise was broken.
func (r *Report) Balanced() bool { return len(r.Count) == 0 }

func (r *Report) find(k Kind, format string, args ...any) {
	if r.Count == nil {
		r.Count = map[Kind]int{}
	}
	r.Count[k]++
	if len(r.Findings) < FindingsMax {
		r.Findings = append(r.Findings, Finding{k, fmt.Sprintf(format, args...)})
	}
}

// Audit balances a history. It is a pure function.
func Audit(h History) *Report {
	r := &Report{}
	ids := byID(h)
	for _, id := range ids.order {
		r.auditID(id, ids.of[id], h)
	}
	r.auditPlaces(h)
	r.auditCounters(h, ids)
	r.auditDigests(h)
	if h.Unfinished != "" {
		r.find(NotFinished, "%s", h.Unfinished)
	}
	return r
}

// account is everything that is known of one id.
type account struct {
	publish    *Publish
	deliveries []*Delivery
}

type accounts struct {
	order []ID
	of    map[ID]*account
}

func byID(h History) accounts {
	a := accounts{of: make(map[ID]*account, len(h.Publishes))}
	get := func(id ID) *account {
		x, ok := a.of[id]
		if !ok {
			x = &account{}
			a.of[id] = x
			a.order = append(a.order, id)
		}
		return x
	}
	for i := range h.Publishes {
		p := &h.Publishes[i]
		get(p.ID).publish = p
	}
	for i := range h.Deliveries {
		d := &h.Deliveries[i]
		x := get(d.ID)
		x.deliveries = append(x.deliveries, d)
	}
	slices.SortFunc(a.order, func(x, y ID) int {
		return cmp.Or(cmp.Compare(x.Producer, y.Producer), cmp.Compare(x.Number, y.Number))
	})
	return a
}

// auditID follows one id from its publish to its last delivery.
func (r *Report) auditID(id ID, x *account, h History) {
	r.Delivered += uint64(len(x.deliveries))
	if x.publish == nil {
		r.find(Ghost, "%s was delivered and never published", id)
		return
	}
	p := x.publish
	r.Published++
	if p.Copies > 1 {
		r.Retransmitted += uint64(p.Copies - 1)
	}
	if p.Duplicate {
		r.Duplicates++
	}
	switch p.Result {
	case Confirmed:
		r.Confirmed++
	case Refused:
		r.Refused++
	case Sealed:
		r.Sealed++
	case Unknown:
		r.Unknown++
	case Open:
		r.find(NotFinished, "%s was published and has no outcome", id)
	}
	if len(x.deliveries) > 0 && (p.Result == Refused || p.Result == Sealed) {
		r.find(Ghost, "%s was reported as not stored, and was delivered", id)
	}
	r.auditDeliveries(id, x, h)
}

func (r *Report) auditDeliveries(id ID, x *account, h History) {
	confirmed := x.publish.Result == Confirmed
	if len(x.deliveries) == 0 {
		if confirmed {
			r.Lost++
			r.find(LostMessage, "%s was confirmed at %s and never delivered", id, x.publish.Place)
		}
		return
	}
	places := map[Place][]*Delivery{}
	var order []Place
	for _, d := range x.deliveries {
		if !d.Intact {
			r.find(Damaged, "%s was delivered from %s with another body", id, d.Place)
		}
		if _, ok := places[d.Place]; !ok {
			order = append(order, d.Place)
		}
		places[d.Place] = append(places[d.Place], d)
	}
	if len(order) > 1 {
		r.find(StoredTwice, "%s was stored %d times: %s and %s", id, len(order), order[0], order[1])
	}
	if confirmed && !slices.Contains(order, x.publish.Place) {
		r.find(Misplaced, "%s was confirmed at %s and delivered from %s", id, x.publish.Place, order[0])
	}
	for _, place := range order {
		r.auditPlace(id, place, places[place], h)
	}
}

// auditPlace follows the deliveries of one stored message: attempts 1, 2, 3,
// each but the first with a reason that its consumer knows of, and an ack at
// the end and nowhere else.
func (r *Report) auditPlace(id ID, place Place, ds []*Delivery, h History) {
	slices.SortStableFunc(ds, func(x, y *Delivery) int { return cmp.Compare(x.Attempt, y.Attempt) })
	excused := h.Stalled > StallExcuses
	for i, d := range ds {
		last := i == len(ds)-1
		switch {
		case d.Attempt < i+1:
			r.find(Redelivered, "%s (%s) was delivered twice as attempt %d", id, place, d.Attempt)
		case d.Attempt > i+1 && !excused:
			r.find(Redelivered, "%s (%s) came as attempt %d, and attempt %d was never seen", id, place, d.Attempt, i+1)
			return
		}
		switch {
		case d.Settled == Acked && !last:
			r.find(Redelivered, "%s (%s) was acked at attempt %d and delivered again", id, place, d.Attempt)
		case d.Settled == Lost && !excused:
			r.find(LeaseTaken, "%s (%s) was taken from a consumer that was alive, at attempt %d", id, place, d.Attempt)
		case !last && d.Settled != Nacked && d.Settled != Acked && !excused:
			r.find(Redelivered, "%s (%s) was delivered again after attempt %d without a reason", id, place, d.Attempt)
		case last && d.Settled != Acked && h.Unfinished == "" && !(excused && d.Settled == Lost):
			r.Lost++
			r.find(LostMessage, "%s (%s) was delivered %d times and never acked", id, place, len(ds))
		}
	}
}

// auditPlaces looks for two ids at one place.
func (r *Report) auditPlaces(h History) {
	at := make(map[Place]ID, len(h.Deliveries))
	for _, d := range h.Deliveries {
		if id, ok := at[d.Place]; ok && id != d.ID {
			r.find(Misplaced, "%s holds both %s and %s", d.Place, id, d.ID)
		}
		at[d.Place] = d.ID
	}
	claimed := make(map[Place]ID, len(h.Publishes))
	for _, p := range h.Publishes {
		if p.Result != Confirmed {
			continue
		}
		if id, ok := claimed[p.Place]; ok {
			r.find(Misplaced, "%s was confirmed for both %s and %s", p.Place, id, p.ID)
		}
		claimed[p.Place] = p.ID
	}
}

// auditCounters holds what was seen against what the machine counted.
func (r *Report) auditCounters(h History, ids accounts) {
	n := h.Counts
	r.Stored, r.Acked, r.DupRefused = n.Stored, n.Acked, n.DuplicatesRefused
	r.Nacked, r.Expired, r.Gone, r.Left = n.RedeliveredNacked, n.RedeliveredExpired, n.RedeliveredGone, n.RedeliveredLeft

	if sum := n.Ready + n.Leased + n.Delayed + n.Parked + n.Acked + n.Purged; sum != n.Stored {
		r.find(Uncounted, "the machine stored %d and accounts for %d", n.Stored, sum)
	}
	if n.Purged != 0 {
		r.find(Uncounted, "the machine purged %d, and nobody asked it to", n.Purged)
	}
	if h.Unfinished != "" {
		return // the rest holds at the end only
	}
	places, nacked := map[Place]bool{}, uint64(0)
	for _, d := range h.Deliveries {
		places[d.Place] = true
		if d.Settled == Nacked {
			nacked++
		}
	}
	unseen := uint64(0) // confirmed and never seen: found as lost already, and stored all the same
	for _, id := range ids.order {
		if x := ids.of[id]; x.publish != nil && x.publish.Result == Confirmed && len(x.deliveries) == 0 {
			unseen++
		}
	}
	if n.Stored != uint64(len(places))+unseen {
		r.find(Uncounted, "the machine stored %d messages, %d were delivered and %d confirmed and not delivered", n.Stored, len(places), unseen)
	}
	if left := n.Ready + n.Leased + n.Delayed + n.Parked; left != 0 {
		r.find(Uncounted, "the machine still holds %d ready, %d leased, %d delayed, %d parked", n.Ready, n.Leased, n.Delayed, n.Parked)
	}
	if n.Acked != uint64(len(places)) {
		r.find(Uncounted, "the machine counts %d acked of %d messages that were delivered", n.Acked, len(places))
	}
	if n.RedeliveredNacked != nacked {
		r.find(Uncounted, "the machine redelivered %d after a nack, and %d were nacked", n.RedeliveredNacked, nacked)
	}
	taken := n.RedeliveredExpired + n.RedeliveredGone + n.RedeliveredLeft
	switch {
	case taken > 0 && h.Stalled > StallExcuses:
		r.Excused = fmt.Sprintf("this process stood still for %s: %d leases that it lost prove nothing", h.Stalled.Round(100*time.Millisecond), taken)
	case taken > 0:
		r.find(LeaseTaken, "the machine took leases from consumers that were alive: %d ran out, %d by giving the consumer up, %d given back", n.RedeliveredExpired, n.RedeliveredGone, n.RedeliveredLeft)
	case n.Delivered != uint64(len(h.Deliveries)):
		r.find(Uncounted, "the machine delivered %d times, the consumers saw %d", n.Delivered, len(h.Deliveries))
	}
}

// auditDigests compares the replicas.
func (r *Report) auditDigests(h History) {
	r.Nodes = h.NodesWanted
	for _, n := range h.Nodes {
		switch {
		case n.Index != h.DigestIndex:
			r.find(DigestsDiffer, "%s has the digest of index %d, the leader that of %d", n.Node, n.Index, h.DigestIndex)
		case n.Digest != h.Digest:
			r.find(DigestsDiffer, "%s has digest %016x at index %d, the leader %016x", n.Node, n.Digest, n.Index, h.Digest)
		default:
			r.DigestsAgree++
		}
	}
	if len(h.Nodes) < h.NodesWanted {
		r.find(DigestsDiffer, "%d of %d nodes gave a digest", len(h.Nodes), h.NodesWanted)
	}
}
