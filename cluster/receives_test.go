package cluster

import (
	"fmt"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
)

// room is receives with a log that a test plays: what is proposed stays in flight
// until the test says what became of it.
type room struct {
	*receives
	t        *testing.T
	now      time.Duration
	empty    bool // what a look at the machine says
	proposed []*flight
}

// flight is one proposed command.
type flight struct {
	kind    fsm.Kind
	request wire.Receive
	done    func(outcome)
}

func newRoom(t *testing.T) *room {
	r := &room{t: t, empty: true}
	clk := newClock(monotonic())
	clk.start(0)
	r.receives = newReceives(newHub(&fakeBodies{size: 1}, clk), func() time.Duration { return r.now })
	r.propose = func(kind fsm.Kind, payload []byte, done func(outcome)) {
		m, _ := wire.DecodeReceive(payload)
		r.proposed = append(r.proposed, &flight{kind, m, done})
	}
	r.refusal = func() *wire.ErrorReply { return &wire.ErrorReply{Code: wire.CodeNotLeader} }
	r.barren = func(*wire.Receive) bool { return r.empty }
	r.start()
	return r
}

// answers keeps what a connection was answered.
type answers struct {
	tapeConn
	got []string
}

func (a *answers) Reply(_ uint32, op wire.Op, payload []byte) {
	m, err := wire.DecodeReceived(payload)
	a.got = append(a.got, fmt.Sprintf("%v %v next %d %v", op, m.Status, m.Next, err))
}

func (a *answers) Error(_ uint32, e wire.ErrorReply) { a.got = append(a.got, e.Code.String()) }

func (r *room) ask(c conn, consumer byte, limit uint32, wait time.Duration) {
	m := wire.Receive{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{consumer}, Queue: "q", First: 1, Done: 1, Limit: limit, Wait: wait}
	r.receive(c, 1, encoded(m), m)
}

// flying expects proposals of these pullers, and nothing else since.
func (r *room) flying(consumers ...byte) []*flight {
	r.t.Helper()
	fs := r.proposed
	r.proposed = nil
	ok := len(fs) == len(consumers)
	for i := range fs {
		ok = ok && fs[i].request.Consumer[0] == consumers[i]
	}
	if !ok {
		r.t.Fatalf("%d proposals, expected those of %v", len(fs), consumers)
	}
	return fs
}

// finds ends a flight with n messages.
func (f *flight) finds(n uint64) {
	res := &fsm.Result{Kind: fsm.KindReceive, Status: fsm.StatusOK, Receive: fsm.ReceiveResult{Queue: 1, Next: 1 + n}}
	for i := range n {
		res.Receive.Deliveries = append(res.Receive.Deliveries, fsm.Delivery{Number: 1 + i, Offset: i, Attempt: 1})
	}
	f.done(outcome{Result: res})
}

func (r *room) news(messages uint64) {
	r.ready([]fsm.ReadyQueue{{Name: "q", Messages: messages}})
}

func (r *room) said(a *answers, want ...string) {
	r.t.Helper()
	a.write(r.t)
	if fmt.Sprint(a.got) != fmt.Sprint(want) {
		r.t.Fatalf("answered %q, expected %q", a.got, want)
	}
	a.got = nil
}

func TestReceives_NothingThere_WaitsWithoutTheLog(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.flying()
	r.news(1)
	r.flying(1)[0].finds(1)
	r.said(c, "receive ok next 2 <nil>")
	if len(c.sent) != 1 || c.sent[0] != "deliver n=0 [1]" {
		t.Errorf("sent %q", c.sent)
	}
	r.news(1)
	r.flying()
}

func TestReceives_FoundNothing_TriesAgainOnlyWithNews(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.empty = false
	r.ask(c, 1, 10, time.Second)
	r.flying(1)[0].finds(0)
	r.flying()
	r.now += 500 * time.Millisecond
	r.expire()
	r.flying()
	r.news(1)
	r.flying(1)[0].finds(0)
	r.flying()
	r.now += time.Second
	r.expire()
	r.said(c, "receive ok next 1 <nil>")
	r.news(1)
	r.flying()
}

func TestReceives_AsManyTryAsThereAreMessages_OldestFirst(t *testing.T) {
	r, c := newRoom(t), &answers{}
	for p := byte(1); p <= 5; p++ {
		r.ask(c, p, 2, time.Second)
	}
	r.news(3)
	fs := r.flying(1, 2)
	// More comes while they are in flight: they will see it, and it is not for one
	// more.
	r.news(4)
	r.flying()
	r.news(5)
	third := r.flying(3)[0]
	// When all that try take nothing, the next one tries, each once.
	fs[0].finds(0)
	fs[1].finds(0)
	r.flying()
	third.finds(0)
	r.flying(4)[0].finds(0)
	r.flying(5)[0].finds(0)
	r.flying()
}

// TestReceives_Refused_TriesAgainAMomentLater: the others would be refused as well, and
// what woke it is still there.
func TestReceives_Refused_TriesAgainAMomentLater(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.ask(c, 2, 10, time.Second)
	r.news(1)
	refused := outcome{Err: errOverloaded("settles")}
	r.flying(1)[0].done(refused)
	r.said(c)
	r.flying()
	r.expire()
	r.flying(1)[0].done(refused)
	// The connection ends that it is for: then it is the other's.
	r.disconnected(c)
	r.flying()
	d := &answers{}
	r.ask(d, 3, 10, time.Second)
	r.ask(d, 4, 10, time.Second)
	r.news(1)
	r.flying(3)[0].done(refused)
	r.drop(wire.ConsumerID{3})
	d.got = nil
	r.expire()
	r.flying(4)[0].finds(1)
	r.said(d, "receive ok next 2 <nil>")
	r.expire()
	r.flying()
}

// TestReceives_SeveralRefused_EachTriesAgain: there is something for both.
func TestReceives_SeveralRefused_EachTriesAgain(t *testing.T) {
	r, c := newRoom(t), &answers{}
	for p := byte(1); p <= 3; p++ {
		r.ask(c, p, 10, time.Second)
	}
	r.news(20)
	for _, f := range r.flying(1, 2) {
		f.done(outcome{Err: errOverloaded("settles")})
	}
	r.expire()
	r.flying(1, 2)
}

// TestReceives_RefusedWhenItIsOver_TheNextTries: what woke it is for who waits.
func TestReceives_RefusedWhenItIsOver_TheNextTries(t *testing.T) {
	r, c, d := newRoom(t), &answers{}, &answers{}
	r.ask(c, 1, 10, time.Second)
	r.ask(d, 2, 10, time.Second)
	r.news(1)
	f := r.flying(1)[0]
	r.disconnected(c)
	f.done(outcome{Err: errOverloaded("settles")})
	r.expire()
	r.flying(2)
}

// TestReceives_NotKnownWhetherItCameToTheLog_IsTold: its sender has to release it.
func TestReceives_NotKnownWhetherItCameToTheLog_IsTold(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.news(1)
	r.flying(1)[0].done(outcome{Err: &wire.ErrorReply{Code: wire.CodeOutcomeUnknown}})
	r.said(c, wire.CodeOutcomeUnknown.String())
}

// TestReceives_RefusedAtTheEndOfItsTime_IsToldSo, and is not tried again.
func TestReceives_RefusedAtTheEndOfItsTime_IsToldSo(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.news(1)
	f := r.flying(1)[0]
	r.news(2)
	r.now += 2 * time.Second
	f.done(outcome{Err: errOverloaded("settles")})
	r.said(c, wire.CodeOverloaded.String())
	r.expire()
	r.flying()
}

func TestReceives_NoWait_IsAnsweredAtOnce(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, 0)
	r.flying(1)[0].finds(0)
	r.said(c, "receive ok next 1 <nil>")
}

func TestReceives_ConnectionEnds_NothingIsProposedForIt(t *testing.T) {
	r, c, other := newRoom(t), &answers{}, &answers{}
	r.ask(c, 1, 10, time.Second)
	r.ask(other, 2, 10, time.Second)
	r.disconnected(c)
	r.news(100)
	f := r.flying(2)[0]
	// It goes while its receive is in the log: nobody is answered.
	r.disconnected(other)
	f.finds(3)
	r.said(other)
	if len(r.consumers)+len(r.conns)+len(r.queues) != 0 {
		t.Error("something of them is kept")
	}
}

func TestReceives_AskedAgain_TheNewerOneIsAnswered(t *testing.T) {
	r, c, newer := newRoom(t), &answers{}, &answers{}
	r.ask(c, 1, 10, time.Second)
	r.ask(newer, 1, 10, time.Second)
	r.said(c, "receive stale next 1 <nil>")
	r.news(1)
	f := r.flying(1)[0]
	r.empty = false // the look finds what the copy in flight has leased
	last := &answers{}
	r.ask(last, 1, 10, time.Second)
	f.finds(1)
	r.flying(1)[0].finds(1)
	r.said(newer, "receive stale next 1 <nil>")
	r.said(last, "receive ok next 2 <nil>")
}

func TestReceives_GivenUp_IsReleasedAndWaitsNoLonger(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	m := wire.Release{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, Queue: "q", First: 1, Done: 1}
	r.release(c, 2, encoded(m), m)
	if len(r.proposed) != 1 || r.proposed[0].kind != fsm.KindRelease {
		t.Fatalf("proposed %v", r.proposed)
	}
	r.proposed[0].done(outcome{Result: &fsm.Result{Kind: fsm.KindRelease, Status: fsm.StatusOK, Receive: fsm.ReceiveResult{Next: 2}}})
	r.said(c, "receive stale next 1 <nil>", "release ok next 2 <nil>")
	r.proposed = nil
	r.news(1)
	r.flying()
}

func TestReceives_LeadershipLost_AllGoToTheNextLeader(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.empty = false
	r.ask(c, 2, 10, time.Second)
	f := r.flying(2)[0]
	r.reset()
	r.said(c, "ONCEQ-1002")
	// Nobody waits at a node that does not lead.
	f.finds(0)
	r.said(c, "receive ok next 1 <nil>")
	r.empty = true
	r.ask(c, 3, 10, time.Second)
	r.flying(3)[0].done(outcome{Err: &wire.ErrorReply{Code: wire.CodeNotLeader}})
	r.said(c, "ONCEQ-1002")
}

func TestReceives_LeadershipLostBeforeTheBodiesWereRead_TheNextLeaderIsAsked(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.ask(c, 1, 10, time.Second)
	r.news(1)
	r.flying(1)[0].finds(1)
	r.hub.clock.stop() // how long the lease lasts is not known here any more
	r.said(c, "ONCEQ-1002")
	if len(c.sent) != 0 {
		t.Errorf("sent %q", c.sent)
	}
}

func TestReceives_ManyMessages_ComeInFramesBeforeTheAnswer(t *testing.T) {
	r, c := newRoom(t), &answers{}
	r.hub.bodies = &fakeBodies{size: deliverFrameBytes / 2}
	r.ask(c, 1, 10, time.Second)
	r.news(5)
	r.flying(1)[0].finds(5)
	r.said(c, "receive ok next 6 <nil>")
	if fmt.Sprint(c.sent) != "[deliver n=0 [1 2] deliver n=0 [3 4] deliver n=0 [5]]" {
		t.Errorf("sent %q", c.sent)
	}
}

func TestReceives_AtTheLimitAndOnePast(t *testing.T) {
	r, c := newRoom(t), &answers{}
	for i := range receivesMax {
		m := wire.Receive{Consumer: wire.ConsumerID{byte(i), byte(i >> 8)}, Queue: "q", First: 1, Limit: 1, Wait: time.Second}
		r.receive(c, 1, nil, m)
	}
	r.said(c)
	r.ask(c, 0xff, 1, time.Second) // known: takes its own place
	r.said(c, "receive stale next 1 <nil>")
	m := wire.Receive{Consumer: wire.ConsumerID{0, 0, 1}, Queue: "q", First: 1, Limit: 1, Wait: time.Second}
	r.receive(c, 1, nil, m)
	r.said(c, wire.CodeOverloaded.String())
}
