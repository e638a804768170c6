package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

const inc, grp = fsmtest.Incarnation, fsmtest.Group

// machine is a machine with a log position.
type machine struct {
	*fsm.Machine
	t     testing.TB
	index uint64
	now   time.Duration
}

func newMachine(t testing.TB, l fsm.Limits) *machine {
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp, Limits: l}, storage.NewMemory()), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}))
	return m
}

func (m *machine) apply(cs ...fsmtest.Command) *fsm.Effects {
	m.t.Helper()
	m.index++
	eff, err := m.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0, cs...))
	if err != nil {
		m.t.Fatal(err)
	}
	return eff
}

func create(name string) fsmtest.Command {
	return fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: name})
}

func open(n byte) fsmtest.Command {
	return fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: wire.Nonce{n}})
}

func attach(c byte, n uint64, queue string, credit uint32) fsmtest.Command {
	return fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{c}, N: n, Queue: queue, Credit: credit, Done: 1})
}

func ack(c byte, from, to, done uint64) fsmtest.Command {
	return fsmtest.New(wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{c}, Done: done, Items: []wire.SettleItem{{From: from, To: to, Verb: wire.VerbAck}}})
}

func TestPublish_RetriedAfterAckAndRestart_IsAnsweredFromTheRecord(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	p := fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "order"))
	m.apply(create("q"), open(1), attach(1, 1, "q", 1), p)
	m.apply(ack(1, 1, 1, 1))
	again := fsm.New(fsm.Config{Group: grp}, storage.NewMemory())
	restore(t, m.Machine, again)
	m.Machine = again
	r := m.apply(p).Results[0].Publish[0]
	if r.Status != fsm.StatusOK || !r.Duplicate || r.Offset != 0 {
		t.Fatalf("got %+v, want the recorded result", r)
	}
	if q, _ := m.QueueByName("q"); q.Counts.Ready+q.Counts.Leased != 0 {
		t.Fatalf("the queue holds something: %+v", q.Counts)
	}
}

func TestApply_UnknownVersionOrDamage_StopsTheNode(t *testing.T) {
	t.Parallel()
	good := fsmtest.Entry(1, 0, 0, create("q"))
	version := bytes.Clone(good)
	version[0] = 9
	count := bytes.Clone(good)
	count[31] = 2
	for name, entry := range map[string][]byte{
		"empty": nil, "short": good[:20], "version": version, "count": count, "cut": good[:len(good)-1],
	} {
		m := fsm.New(fsm.Config{Group: grp}, storage.NewMemory())
		if _, err := m.Apply(1, entry); !errors.Is(err, fsm.ErrBadEntry) {
			t.Errorf("%s: got %v, want ErrBadEntry", name, err)
		}
	}
}

func TestApply_UndecodableCommand_IsRefusedAndTheRestApplied(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	bomb := fsmtest.Command{Kind: fsm.KindPublish, Payload: []byte{0xdd, 0xff, 0xff, 0xff, 0xff}}
	unknown := fsmtest.Command{Kind: 200}
	rs := m.apply(bomb, unknown, create("q")).Results
	if rs[0].Status != fsm.StatusMalformed || rs[1].Status != fsm.StatusUnsupported || rs[2].Status != fsm.StatusOK {
		t.Fatalf("got %+v", rs)
	}
}

func TestCheck_AtTheLimitsAndOnePast(t *testing.T) {
	t.Parallel()
	l := fsm.Limits{BodyBytesMax: 10, CreditMax: 5}
	many := func(n int) []wire.Header { return make([]wire.Header, n) }
	body := func(n int, hs []wire.Header, biz int) fsmtest.Command {
		ms := []wire.Message{{Body: make([]byte, n), Headers: hs, BizID: string(make([]byte, biz))}}
		return fsmtest.New(wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Queue: "q",
			Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("q", ms), Messages: ms}}})
	}
	settles := func(n uint64) fsmtest.Command { return ack(1, 1, n, 1) }
	for _, c := range []struct {
		name    string
		command fsmtest.Command
		want    fsm.Status // 0: accepted
	}{
		{"body", body(10, nil, 0), 0},
		{"body", body(11, nil, 0), fsm.StatusTooLarge},
		{"headers", body(1, many(fsm.HeadersMax), 0), 0},
		{"headers", body(1, many(fsm.HeadersMax+1), 0), fsm.StatusMalformed},
		{"biz-id", body(1, nil, fsm.BizIDBytesMax), 0},
		{"biz-id", body(1, nil, fsm.BizIDBytesMax+1), fsm.StatusMalformed},
		{"credit", attach(1, 1, "q", 5), 0},
		{"credit", attach(1, 1, "q", 6), fsm.StatusMalformed},
		{"credit", attach(1, 1, "q", 0), fsm.StatusMalformed},
		{"attachment", attach(1, 0, "q", 1), fsm.StatusMalformed},
		{"settles", settles(fsm.SettleNumbersMax), 0},
		{"settles", settles(fsm.SettleNumbersMax + 1), fsm.StatusMalformed},
		{"settles", settles(1<<64 - 1), fsm.StatusMalformed},
		{"settles", ack(1, 0, 0, 1), fsm.StatusMalformed},
		{"settles", ack(1, 1<<64-2, 1<<64-2, 1), 0},
		{"settles", ack(1, 1<<64-1, 1<<64-1, 1), fsm.StatusMalformed},
		{"lease time", fsmtest.New(wire.QueueCreate{Name: "q", Settings: wire.QueueSettings{LeaseTime: fsm.LeaseTimeMax}}), 0},
		{"lease time", fsmtest.New(wire.QueueCreate{Name: "q", Settings: wire.QueueSettings{LeaseTime: fsm.LeaseTimeMax + 1}}), fsm.StatusMalformed},
		{"leader's command", fsmtest.New(fsmtest.Term{Node: "forged"}), fsm.StatusUnsupported},
		{"leader's command", fsmtest.New(fsmtest.Detach{}), fsm.StatusUnsupported},
	} {
		err := fsm.Check(c.command.Kind, c.command.Payload, l)
		var ce *fsm.CheckError
		switch {
		case c.want == 0 && err != nil:
			t.Errorf("%s: refused: %v", c.name, err)
		case c.want != 0 && !errors.As(err, &ce):
			t.Errorf("%s: got %v, want a refusal", c.name, err)
		case c.want != 0 && ce.Status != c.want:
			t.Errorf("%s: refused with status %d (%v), want %d", c.name, ce.Status, err, c.want)
		}
	}
}

// No delivery has the highest number that there is, and a loop that ends with it
// would go on for ever: in Apply, on every node, again at each start.
func TestApply_RangeThatEndsAtTheHighestNumber_IsRefused(t *testing.T) {
	t.Parallel()
	const last = 1<<64 - 1
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), attach(1, 1, "q", 1))
	for name, c := range map[string]fsmtest.Command{
		"settle": ack(1, last, last, 1),
		"attach": fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, N: 2, Queue: "q", Credit: 1, Done: 1, Unsettled: []wire.Range{{From: last, To: last}}}),
		"leave":  fsmtest.New(wire.Leave{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, N: 1, Done: 1, NotHandled: []wire.Range{{From: last - 5, To: last}}}),
	} {
		if st := m.apply(c).Results[0].Status; st != fsm.StatusMalformed {
			t.Errorf("%s: status %d, want %d", name, st, fsm.StatusMalformed)
		}
	}
}

// Who attaches is sent all that it holds. A client that attaches again and again
// must not make one entry send more than the memory takes.
func TestAttach_ManyTimesInOneEntry_IsBounded(t *testing.T) {
	t.Parallel()
	const most = 4
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1), attach(1, 1, "q", 100), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", make([]string, 100)...)))
	var again []fsmtest.Command
	for n := range uint64(50) {
		again = append(again, attach(1, 2+n, "q", 100))
	}
	eff := m.apply(again...)
	if n := len(eff.Deliveries); n != most*100 {
		t.Fatalf("%d deliveries of the 100 that are held", n)
	}
	if last, beyond := eff.Results[most-1].Status, eff.Results[most].Status; last != fsm.StatusOK || beyond != fsm.StatusStale {
		t.Fatalf("attach %d: status %d, the one behind: %d", most, last, beyond)
	}
	if st := m.apply(attach(1, 2+most, "q", 100)).Results[0].Status; st != fsm.StatusOK {
		t.Fatalf("in the next entry: status %d", st)
	}
}

// A range may name numbers that were never given out; they are answered together.
func TestSettle_NumbersThatWereNeverGiven_AreUnknown(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
	m.apply(ack(1, 1, 1, 2))
	got := m.apply(ack(1, 1, 100_000, 1), ack(1, 200_000, 300_000, 1)).Results
	want := []fsm.DeliveryState{{From: 1, To: 1, State: fsm.LeaseUnknown}, {From: 2, To: 3, State: fsm.LeaseAcked}, {From: 4, To: 100_000, State: fsm.LeaseUnknown}}
	if !slices.Equal(got[0].Settle, want) {
		t.Errorf("got %v, want %v", got[0].Settle, want)
	}
	if want := []fsm.DeliveryState{{From: 200_000, To: 300_000, State: fsm.LeaseUnknown}}; !slices.Equal(got[1].Settle, want) {
		t.Errorf("got %v, want %v", got[1].Settle, want)
	}
}

func TestCaps_AtTheLimitAndOnePast(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{SessionsMax: 2, QueuesMax: 2, ConsumersMax: 2})
	rs := m.apply(open(1), open(2), open(3), create("a"), create("b"), create("c"),
		attach(1, 1, "a", 1), attach(2, 1, "a", 1), attach(3, 1, "a", 1)).Results
	for i, want := range []fsm.Status{
		fsm.StatusOK, fsm.StatusOK, fsm.StatusSessionCap, fsm.StatusOK, fsm.StatusOK, fsm.StatusQueueCap,
		fsm.StatusOK, fsm.StatusOK, fsm.StatusConsumerCap,
	} {
		if rs[i].Status != want {
			t.Errorf("command %d: status %d, want %d", i, rs[i].Status, want)
		}
	}
}

// A client that acks and never says that it knows must not make the table of
// outcomes grow.
func TestDone_NeverRaised_BoundsTheOutcomes(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	const most = 2*4 + fsm.DoneSlack
	bodies := make([]string, 2*most)
	m.apply(create("q"), open(1), attach(1, 1, "q", 4), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", bodies...)))
	delivered := 4
	for range most {
		delivered += len(m.apply(ack(1, 1, most, 1)).Deliveries)
	}
	if delivered != most {
		t.Fatalf("%d deliveries with a credit of 4 and no word of done, want %d", delivered, most)
	}
	if n := len(m.apply(ack(1, most+1, most+1, most+1)).Deliveries); n != 4 {
		t.Fatalf("%d deliveries after done was raised, want 4", n)
	}
}

// A message may fail as often as it likes: doubled sixty times, a delay does not
// fit into the number that holds it.
func TestBackoff_NeverShrinksBelowAFifthOfJitter(t *testing.T) {
	t.Parallel()
	for _, s := range []fsm.QueueSettings{
		{BackoffMin: fsm.BackoffMinDefault, BackoffMax: fsm.BackoffMaxDefault}, {BackoffMin: 1, BackoffMax: fsm.NackDelayMax}, {BackoffMin: time.Minute, BackoffMax: time.Hour},
		{BackoffMin: fsm.NackDelayMax, BackoffMax: fsm.NackDelayMax}, {BackoffMin: time.Hour, BackoffMax: fsm.NackDelayMax},
	} {
		reached := time.Duration(0)
		for failures := uint32(1); failures < 200; failures++ {
			d := fsm.Backoff(s, 1, 0, 0, failures)
			if d < reached-reached/5 {
				t.Errorf("backoff from %v to %v: %v after %d failures, it was %v before", s.BackoffMin, s.BackoffMax, d, failures, reached)
			}
			reached = max(reached, d)
		}
	}
}

func TestSession_FloorJumpsFar_CostsWhatIsStored(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	for i := range uint64(50) {
		m.apply(fsmtest.New(fsmtest.Frame(1, 1, 1, 1+i, 0, "q", "x")))
	}
	m.apply(fsmtest.New(fsmtest.Frame(1, 1, 1<<62, 1<<62, 0, "q", "x")))
	if n := m.Counts().Outcomes; n != 1 {
		t.Fatalf("%d outcomes above the floor, want 1", n)
	}
}

func TestRestore_DamagedAnywhere_IsRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	try := func(b []byte) error {
		return fsm.New(fsm.Config{Group: grp}, storage.NewMemory()).Restore(bytes.NewReader(b))
	}
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if err := try(bad); !errors.Is(err, fsm.ErrBadSnapshot) {
			t.Fatalf("bit flipped in byte %d of %d: got %v, want ErrBadSnapshot", i, len(good), err)
		}
		if err := try(good[:i]); !errors.Is(err, fsm.ErrBadSnapshot) {
			t.Fatalf("cut at %d of %d: got %v, want ErrBadSnapshot", i, len(good), err)
		}
	}
}

// TestSnapshot_OutcomeAboveTheHighest_IsRefused: it would not be looked up, and a copy
// would be stored a second time.
func TestSnapshot_OutcomeAboveTheHighest_IsRefused(t *testing.T) {
	t.Parallel()
	for _, lower := range []bool{false, true} {
		m := newMachine(t, fsm.Limits{})
		m.apply(create("q"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a")))
		if lower {
			fsm.LowerHighest(m.Machine)
		}
		snap, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Release()
		var buf bytes.Buffer
		if _, err := snap.WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		err = fsm.New(fsm.Config{Group: grp}, storage.NewMemory()).Restore(&buf)
		if errors.Is(err, fsm.ErrBadSnapshot) != lower || (err != nil) != lower {
			t.Errorf("too low %v: %v", lower, err)
		}
	}
}

func TestSnapshot_IsNotChangedByWhatFollows(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
	want := m.Digest()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.apply(ack(1, 1, 2, 1), fsmtest.New(fsmtest.Frame(1, 1, 1, 2, 0, "q", "d")))
	m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1}))
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	bodies := storage.NewMemory()
	again := fsm.New(fsm.Config{Group: grp}, bodies)
	if err := again.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	if got := again.Digest(); got != want {
		t.Fatalf("digest %016x, at the snapshot it was %016x", got, want)
	}
	for offset := range uint64(3) {
		if _, _, ok := bodies.Get(1, 0, offset); !ok {
			t.Fatalf("the body of offset %d is not in the snapshot", offset)
		}
	}
}

func TestDigest_SeesAnyDifference(t *testing.T) {
	t.Parallel()
	build := func(extra ...fsmtest.Command) uint64 {
		m := newMachine(t, fsm.Limits{})
		m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b")))
		m.apply(extra...)
		return m.Digest()
	}
	base := build()
	if build() != base {
		t.Fatal("equal histories, different digests")
	}
	for name, c := range map[string]fsmtest.Command{
		"ack": ack(1, 1, 1, 1), "seal": fsmtest.New(wire.Seal{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Sequences: []uint64{2}}),
		"extend":  fsmtest.New(wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Items: []wire.SettleItem{{From: 1, To: 1, Verb: wire.VerbExtend, Time: time.Hour}}}),
		"session": open(2), "queue": create("r"), "detach": fsmtest.New(fsmtest.Detach{Consumer: fsm.ConsumerID{1}, N: 1}),
	} {
		if build(c) == base {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

func FuzzCheckThenApply(f *testing.F) {
	for _, c := range []fsmtest.Command{
		create("q"), open(1), attach(1, 1, "q", 2), ack(1, 1, 2, 1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b")),
		fsmtest.New(wire.Seal{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Sequences: []uint64{2}}),
		fsmtest.New(wire.Leave{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, N: 1, NotHandled: []wire.Range{{From: 1, To: 9}}}),
		fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1}),
		{Kind: fsm.KindRaise, Payload: fsm.RaisePayload(12_336)},
	} {
		f.Add(byte(c.Kind), c.Payload)
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		a, b := newMachine(t, fsm.Limits{}), newMachine(t, fsm.Limits{})
		c := fsmtest.Command{Kind: fsm.Kind(kind), Payload: payload}
		accepted := fsm.Check(c.Kind, payload, fsm.Limits{}) == nil
		var effects [2]string
		for i, m := range []*machine{a, b} {
			m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
			m.index++
			eff, err := m.Apply(m.index, fsmtest.Entry(m.index, 0, 0, c))
			if errors.Is(err, fsm.ErrVersion) && c.Kind == fsm.KindRaise && !accepted {
				return // a node of this build ends here: what another build wrote is not guessed at
			}
			if err != nil {
				t.Fatal(err)
			}
			effects[i] = fmt.Sprint(fsmtest.Describe(eff))
			if st := eff.Results[0].Status; accepted && st == fsm.StatusMalformed {
				t.Fatalf("Check accepts it, Apply calls it malformed")
			}
			m.now = time.Hour
			m.apply()
			for _, q := range m.Queues() {
				if q.Counts.Stored != q.Counts.Sum() {
					t.Fatalf("stored %d, states add up to %d", q.Counts.Stored, q.Counts.Sum())
				}
			}
		}
		if effects[0] != effects[1] || a.Digest() != b.Digest() {
			t.Fatal("the same bytes, different results")
		}
	})
}

func FuzzRestore(f *testing.F) {
	m := newMachine(f, fsm.Limits{})
	m.apply(create("q"), open(1), attach(1, 1, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b")))
	snap, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = fsm.New(fsm.Config{Group: grp}, storage.NewMemory()).Restore(bytes.NewReader(b))
	})
}

// TestDigest_AfterARestore_IsSummedWithTheEntriesBefore, so that no single entry waits
// for the hashes of all rows.
func TestDigest_AfterARestore_IsSummedWithTheEntriesBefore(t *testing.T) {
	t.Parallel()
	const sessions = 40_000
	old := large(t, sessions)
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t, index: old.index, now: old.now}
	restore(t, old.Machine, m.Machine)
	if fsm.Unsummed(m.Machine) < 2*sessions {
		t.Fatalf("%d rows wait for a digest", fsm.Unsummed(m.Machine))
	}
	for fsm.Unsummed(m.Machine) > fsm.DigestRowsMax {
		before := fsm.Unsummed(m.Machine)
		m.apply()
		old.apply()
		if fsm.Unsummed(m.Machine) >= before {
			t.Fatalf("%d rows wait for a digest, and no fewer after an entry", before)
		}
	}
	if m.Digest() != old.Digest() {
		t.Error("the digests differ")
	}
}

// A leader that stamps less than its predecessor did takes no time back.
func TestApply_AnEarlierStamp_LeavesTheTime(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.now = time.Hour
	want := m.apply().Now
	m.now = time.Minute
	if got := m.apply().Now; got != want {
		t.Errorf("it was %v, and then %v", want, got)
	}
}

// TestDeliverAt_LateCopyUnderAnotherClock_IsADuplicate: the moment becomes a delay once,
// by the wall clock of the leader that stores it. A copy that another leader judges, whose
// clock says something else, is the same publish all the same.
func TestDeliverAt_LateCopyUnderAnotherClock_IsADuplicate(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	ms := []wire.Message{{Body: []byte("x"), DeliverAt: int64(time.Hour)}}
	f := wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: 1, Queue: "q",
		Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("q", ms), Messages: ms}}}
	for i, wall := range []time.Duration{0, 50 * time.Minute, 2 * time.Hour, -time.Hour} {
		m.index++
		eff, err := m.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), int64(wall), fsmtest.New(f)))
		if err != nil {
			t.Fatal(err)
		}
		if r := eff.Results[0].Publish[0]; r.Status != fsm.StatusOK || r.Duplicate != (i > 0) {
			t.Fatalf("at %v: %+v", wall, r)
		}
		found, _ := m.Peek("q", fsm.MessageDelayed, fsm.MessageInfo{}, 10)
		if len(found) != 1 || found[0].Due != time.Hour {
			t.Fatalf("at %v: %+v", wall, found)
		}
	}
}

// TestAssign_BudgetSpentOnAReceive_RestoredReplicaAgrees: where the next entry begins is
// part of the state, and whoever only asks is not there any more by then.
func TestAssign_BudgetSpentOnAReceive_RestoredReplicaAgrees(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{AssignmentBudget: 1}
	m := newMachine(t, limits)
	m.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}), create("q"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
	m.apply(fsmtest.New(wire.Receive{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Queue: "q", First: 1, Done: 1, Limit: 3}))
	again := fsm.New(fsm.Config{Group: grp, Limits: limits}, storage.NewMemory())
	restore(t, m.Machine, again)
	m.apply()
	if _, err := again.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0)); err != nil {
		t.Fatal(err)
	}
	if again.Digest() != m.Digest() {
		t.Fatal(fsm.DifferentRows(m.Machine, again))
	}
}

// TestDelete_ConsumersOutliveTheQueue_ReplicasAgree: what a budget leaves of a deleted or
// purged queue's consumers for later entries is the same on a replica that summed and
// copied their rows before as on one that does so now.
func TestDelete_ConsumersOutliveTheQueue_ReplicasAgree(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]fsmtest.Command{
		"deleted": fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 1, Force: true}),
		"purged":  fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{9}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := fsm.Limits{TimerBudget: 1}
			m := newMachine(t, limits)
			keyed := wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: 1, Queue: "q"}
			for i := range uint64(4) {
				keyed.Publishes = append(keyed.Publishes, wire.Publish{Sequence: i + 1, Messages: []wire.Message{{OrderingKey: fmt.Sprint(i)}}})
			}
			m.apply(create("q"), open(1), fsmtest.New(keyed))
			m.apply(attach(1, 1, "q", 2), attach(2, 1, "q", 1), attach(3, 1, "q", 1))
			m.Digest()
			m.BeginCopy()
			m.CopySome(1<<20, nil)
			if r := m.apply(end).Results[0]; r.Status != fsm.StatusOK || r.Removed != 4 {
				t.Fatalf("%+v", r)
			}
			if _, _, left := fsm.ConsumersVisited(m.Machine, "", 0, 10); left < 2 {
				t.Fatal("only one consumer is left: the test shows nothing")
			}
			again := fsm.New(fsm.Config{Group: grp, Limits: limits}, storage.NewMemory())
			restore(t, m.Machine, again)
			for n := 0; ; n++ {
				if again.Digest() != m.Digest() {
					t.Fatalf("after %d entries: %q", n, append(fsm.DifferentRows(m.Machine, again), fsm.StaleRows(m.Machine)...))
				}
				eff := m.apply()
				if _, err := again.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0)); err != nil {
					t.Fatal(err)
				}
				if !eff.More {
					return
				}
			}
		})
	}
}

// agrees restores a replica from m now and says in which rows the two differ.
func (m *machine) agrees(limits fsm.Limits) {
	m.t.Helper()
	again := fsm.New(fsm.Config{Group: grp, Limits: limits}, storage.NewMemory())
	restore(m.t, m.Machine, again)
	if again.Digest() != m.Digest() {
		m.t.Errorf("a restored replica has another digest: %q", append(fsm.DifferentRows(m.Machine, again), fsm.StaleRows(m.Machine)...))
	}
}

// TestAckPublish_OfAPurgedDelivery_ReplicasAgree: it finds out what the budget has left
// of the purge, and the consumer has room again.
func TestAckPublish_OfAPurgedDelivery_ReplicasAgree(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{TimerBudget: 1}
	m := newMachine(t, limits)
	m.apply(create("q"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", "a", "b", "c")))
	m.apply(attach(1, 1, "q", 1), attach(2, 1, "q", 1), attach(3, 1, "q", 1))
	m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{9}}))
	m.Digest()
	c := wire.AckPublish{
		Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: 1, Sequence: 2, Consumer: wire.ConsumerID{3}, Number: 1, Done: 1,
		Outputs: []wire.Output{{Queue: "q", Messages: []wire.Message{{Body: []byte("d")}}}},
	}
	c.Checksum = wire.AckPublishChecksum(c.Consumer, c.Number, c.Outputs)
	if st := m.apply(fsmtest.New(c)).Results[0].Status; st != fsm.StatusLeaseLost {
		t.Fatal(wire.Status(st))
	}
	m.agrees(limits)
	eff := m.apply(fsmtest.New(fsmtest.Frame(1, 1, 2, 2, 0, "q", "e", "f")))
	if len(eff.Deliveries) != 2 || eff.Deliveries[1].Consumer != (fsm.ConsumerID{3}) {
		t.Errorf("the first consumer was woken, the third has room again, and %+v was delivered", eff.Deliveries)
	}
}

// TestReceive_BeyondTheWindow_ReplicasAgree: it is refused, and what it says to know is
// noted all the same.
func TestReceive_BeyondTheWindow_ReplicasAgree(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}), create("q"))
	r := wire.Release{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Queue: "q", Done: 1}
	var all []fsmtest.Command
	for range fsm.PullNumbersMax {
		r.First++
		all = append(all, fsmtest.New(r))
	}
	m.apply(all...)
	m.Digest()
	receive := wire.Receive{Incarnation: inc, Group: grp, Consumer: r.Consumer, Queue: "q", First: r.First + 1, Done: 2, Limit: 2}
	if st := m.apply(fsmtest.New(receive)).Results[0].Status; st != fsm.StatusWindowFull {
		t.Fatal(wire.Status(st))
	}
	m.agrees(fsm.Limits{})
}
