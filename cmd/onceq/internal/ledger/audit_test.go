package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"onceq/transport/wire"
)

// good is a run in which everything went well: three producers with four
// messages each, one of which was nacked once, one confirmed by the record of
// an earlier copy.
func good() History {
	h := History{NodesWanted: 3, DigestIndex: 90, Digest: 7}
	offset := uint64(1)
	for p := uint32(1); p <= 3; p++ {
		for n := uint64(0); n < 4; n++ {
			id, place := ID{p, n}, Place{0, offset}
			offset++
			h.Publishes = append(h.Publishes, Publish{ID: id, Result: Confirmed, Place: place, Copies: 1})
			h.Deliveries = append(h.Deliveries, Delivery{ID: id, Place: place, Attempt: 1, Consumer: 1, Intact: true, Settled: Acked})
		}
	}
	h.Publishes[3].Copies, h.Publishes[3].Duplicate = 2, true
	h.Deliveries[5].Settled = Nacked
	again := h.Deliveries[5]
	again.Attempt, again.Settled, again.Consumer = 2, Acked, 2
	h.Deliveries = append(h.Deliveries, again)
	for i := range 3 {
		h.Nodes = append(h.Nodes, Digest{Node: fmt.Sprintf("n%d", i+1), Index: 90, Digest: 7})
	}
	h.Counts = wire.QueueCounts{Stored: 12, Acked: 12, Delivered: 13, RedeliveredNacked: 1, DuplicatesRefused: 1}
	return h
}

func TestAudit_GoodRun_Balances(t *testing.T) {
	r := Audit(good())
	if !r.Balanced() {
		t.Fatalf("a good run has findings: %v", r.Findings)
	}
	if r.Published != 12 || r.Confirmed != 12 || r.Retransmitted != 1 || r.Duplicates != 1 || r.Stored != 12 ||
		r.Delivered != 13 || r.Acked != 12 || r.Nacked != 1 || r.Lost != 0 || r.DigestsAgree != 3 {
		t.Fatalf("the numbers are wrong: %+v", r)
	}
}

// Each fault is planted into a good run, with the machine's counters as that
// fault would leave them, and must be found under its name.
func TestAudit_PlantedFault_IsFound(t *testing.T) {
	drop := func(h *History, i int) { h.Deliveries = append(h.Deliveries[:i:i], h.Deliveries[i+1:]...) }
	for _, c := range []struct {
		name  string
		plant func(h *History)
		want  Kind
		text  string
	}{
		{"a confirmed message is dropped before it is stored", func(h *History) {
			drop(h, 2)
			h.Counts.Stored, h.Counts.Acked, h.Counts.Delivered = 11, 11, 12
		}, LostMessage, "p1/2 was confirmed at offset 3 and never delivered"},
		{"a confirmed message is dropped and the counters hide it", func(h *History) {
			drop(h, 2)
			h.Counts.Delivered = 12
		}, LostMessage, "p1/2"},
		{"a message is stored twice", func(h *History) {
			second := h.Deliveries[2]
			second.Place = Place{0, 99}
			h.Deliveries = append(h.Deliveries, second)
			h.Counts.Stored, h.Counts.Acked, h.Counts.Delivered = 13, 13, 14
		}, StoredTwice, "p1/2 was stored 2 times: offset 3 and offset 99"},
		{"an acked message is delivered again after a failover", func(h *History) {
			second := h.Deliveries[2]
			second.Attempt = 2
			h.Deliveries = append(h.Deliveries, second)
			h.Counts.Delivered, h.Counts.RedeliveredGone = 14, 1
		}, Redelivered, "p1/2 (offset 3) was acked at attempt 1 and delivered again"},
		{"a leased message is redelivered without a cause", func(h *History) {
			h.Deliveries[2].Settled = Unsure
			second := h.Deliveries[2]
			second.Attempt, second.Settled = 2, Acked
			h.Deliveries = append(h.Deliveries, second)
			h.Counts.Delivered = 14
		}, Redelivered, "without a reason"},
		{"a lease is taken from a living consumer at a failover", func(h *History) {
			h.Deliveries[2].Settled = Lost
			second := h.Deliveries[2]
			second.Attempt, second.Settled = 2, Acked
			h.Deliveries = append(h.Deliveries, second)
			h.Counts.Delivered, h.Counts.RedeliveredGone = 14, 1
		}, LeaseTaken, "p1/2 (offset 3) was taken from a consumer that was alive"},
		{"the same attempt comes to two consumers", func(h *History) {
			second := h.Deliveries[2]
			second.Consumer = 2
			h.Deliveries = append(h.Deliveries, second)
			h.Counts.Delivered = 14
		}, Redelivered, "twice as attempt 1"},
		{"an attempt is used up without being seen", func(h *History) {
			h.Deliveries[2].Attempt = 2
			h.Counts.Delivered, h.Counts.RedeliveredExpired = 14, 1
		}, Redelivered, "came as attempt 2, and attempt 1 was never seen"},
		{"a message is confirmed at a place that holds another", func(h *History) { h.Publishes[2].Place = h.Publishes[1].Place },
			Misplaced, "was confirmed for both"},
		{"a place holds two messages", func(h *History) { h.Deliveries[2].Place = h.Deliveries[1].Place }, Misplaced, "holds both"},
		{"a message comes from nowhere", func(h *History) { h.Deliveries[2].ID = ID{9, 9} }, Ghost, "p9/9 was delivered and never published"},
		{"a sealed message is delivered", func(h *History) { h.Publishes[2].Result = Sealed }, Ghost, "reported as not stored"},
		{"a refused message is delivered", func(h *History) { h.Publishes[2].Result = Refused }, Ghost, "reported as not stored"},
		{"a body is changed", func(h *History) { h.Deliveries[2].Intact = false }, Damaged, "another body"},
		{"a message is never acked", func(h *History) {
			h.Deliveries[2].Settled = Unsure
			h.Counts.Acked, h.Counts.Leased = 11, 1
		}, LostMessage, "never acked"},
		{"the machine counts a message too many", func(h *History) { h.Counts.Stored, h.Counts.Acked = 13, 13 }, Uncounted, "stored 13"},
		{"the machine loses count", func(h *History) { h.Counts.Stored = 13 }, Uncounted, "accounts for 12"},
		{"the machine holds something back", func(h *History) { h.Counts.Acked, h.Counts.Parked = 11, 1 }, Uncounted, "1 parked"},
		{"the machine purges", func(h *History) { h.Counts.Acked, h.Counts.Purged = 11, 1 }, Uncounted, "purged 1"},
		{"the machine counts other nacks", func(h *History) { h.Counts.RedeliveredNacked = 2 }, Uncounted, "after a nack"},
		{"the machine delivered what nobody saw", func(h *History) { h.Counts.Delivered = 14 }, Uncounted, "delivered 14 times"},
		{"leases ran out unseen", func(h *History) { h.Counts.RedeliveredExpired = 1 }, LeaseTaken, "1 ran out"},
		{"a node has another digest", func(h *History) { h.Nodes[1].Digest = 8 }, DigestsDiffer, "n2"},
		{"a node has a digest of another index", func(h *History) { h.Nodes[1].Index = 91 }, DigestsDiffer, "index 91"},
		{"a node gives no digest", func(h *History) { h.Nodes = h.Nodes[:2] }, DigestsDiffer, "2 of 3"},
		{"a publish has no outcome", func(h *History) { h.Publishes[2].Result = Open }, NotFinished, "no outcome"},
		{"the run did not end", func(h *History) { h.Unfinished = "nothing moved" }, NotFinished, "nothing moved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := good()
			c.plant(&h)
			r := Audit(h)
			if r.Count[c.want] == 0 {
				t.Fatalf("no finding %q: %v", c.want, r.Findings)
			}
			for _, f := range r.Findings {
				if f.Kind == c.want && strings.Contains(f.Text, c.text) {
					return
				}
			}
			t.Fatalf("no finding says %q: %v", c.text, r.Findings)
		})
	}
}

func TestAudit_LostLeaseWhileTheConsumersStoodStill_IsExcused(t *testing.T) {
	h := good()
	h.Stalled = 30 * time.Second
	h.Deliveries[2].Settled = Lost
	second := h.Deliveries[2]
	second.Attempt, second.Settled = 2, Acked
	h.Deliveries = append(h.Deliveries, second)
	h.Counts.Delivered, h.Counts.RedeliveredGone = 14, 1
	r := Audit(h)
	if !r.Balanced() {
		t.Fatalf("findings: %v", r.Findings)
	}
	if r.Excused == "" {
		t.Fatal("the excuse is not mentioned")
	}
}

// A stall excuses lost leases; it excuses no second delivery of what was acked.
func TestAudit_AckedAndDeliveredAgain_IsNeverExcused(t *testing.T) {
	h := good()
	h.Stalled = 30 * time.Second
	second := h.Deliveries[2]
	second.Attempt = 2
	h.Deliveries = append(h.Deliveries, second)
	h.Counts.Delivered, h.Counts.RedeliveredGone = 14, 1
	if r := Audit(h); r.Count[Redelivered] == 0 {
		t.Fatalf("findings: %v", r.Findings)
	}
}

func TestAudit_UnknownOutcome_MayBeStoredOrNot(t *testing.T) {
	h := good()
	h.Publishes[1].Result = Unknown // stored and delivered
	h.Publishes = append(h.Publishes, Publish{ID: ID{1, 77}, Result: Unknown, Copies: 3}, Publish{ID: ID{1, 78}, Result: Sealed, Copies: 1})
	r := Audit(h)
	if !r.Balanced() {
		t.Fatalf("findings: %v", r.Findings)
	}
	if r.Unknown != 2 || r.Sealed != 1 || r.Confirmed != 11 || r.Retransmitted != 3 {
		t.Fatalf("%+v", r)
	}
}

func TestAudit_ManyFindings_AreCountedAndCutOff(t *testing.T) {
	h := good()
	for n := range uint64(1000) {
		h.Publishes = append(h.Publishes, Publish{ID: ID{5, n}, Result: Confirmed, Place: Place{0, 1000 + n}, Copies: 1})
	}
	r := Audit(h)
	if len(r.Findings) != FindingsMax || r.Count[LostMessage] != 1000 || r.Lost != 1000 {
		t.Fatalf("%d findings kept, %d counted, %d lost", len(r.Findings), r.Count[LostMessage], r.Lost)
	}
}
