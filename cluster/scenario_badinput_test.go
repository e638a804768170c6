package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// allocated is how many bytes this process allocates while f runs. It grows with
// whatever is believed of a length that was only promised. The tests that use it
// do not run beside others.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// stillServes says that a message goes through the cluster.
func stillServes(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	cl := connect(t, c)
	ctx := bounded(t)
	if _, err := cl.Admin().CreateQueue(ctx, "still-serves", client.QueueSettings{}); err != nil {
		t.Fatalf("after it: %v", err)
	}
	if _, err := producerOf(t, cl, "still-serves").Publish(ctx, client.Message{Body: []byte("x")}); err != nil {
		t.Fatalf("after it: %v", err)
	}
	got := newReceived()
	stop := consume(t, cl, "still-serves", func(_ context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	got.waitFor(t, 1)
	stop()
	c.WaitCaughtUp()
	c.DigestsAgree()
}

func payload(m interface{ Append(w *pack.Writer) }) []byte {
	w := pack.NewWriter(nil)
	m.Append(w)
	return w.Bytes()
}

// TestBadInput_IsRefusedWithItsCode: each bad request is answered with its code
// and the connection lives, and a good request right at the limit is taken.
func TestBadInput_IsRefusedWithItsCode(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, r, s := ready(t, c, "orders")
	inc, session := r.Incarnation, s.Session.Number
	frame := func(change func(f *wire.PublishFrame)) []byte {
		f := wire.PublishFrame{
			Incarnation: inc, Group: 1, Session: session, Epoch: 1, Floor: 1, Queue: "orders",
			Publishes: []wire.Publish{clustertest.Publication("orders", 1, "x")},
		}
		change(&f)
		return payload(f)
	}
	message := func(change func(m *wire.Message)) []byte {
		return frame(func(f *wire.PublishFrame) {
			ms := []wire.Message{{Body: []byte("x")}}
			change(&ms[0])
			f.Publishes = []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("orders", ms), Messages: ms}}
		})
	}
	consumer := clustertest.NewConsumer()
	attach := func(change func(a *wire.Attach)) []byte {
		a := wire.Attach{Incarnation: inc, Group: 1, Consumer: consumer, N: 1, Queue: "orders", Credit: 1, Done: 1}
		change(&a)
		return payload(a)
	}
	bodyMax := fsm.DefaultLimits().BodyBytesMax
	for name, bad := range map[string]struct {
		op      wire.Op
		payload []byte
		code    wire.Code // of an error answer, or of the status in the answer
	}{
		"unknown queue, publish": {wire.OpPublish, frame(func(f *wire.PublishFrame) {
			f.Queue = "nowhere"
			f.Publishes[0] = clustertest.Publication("nowhere", 1, "x")
		}), wire.CodeNoQueue},
		"unknown queue, attach":          {wire.OpAttach, attach(func(a *wire.Attach) { a.Queue = "nowhere" }), wire.CodeNoQueue},
		"unknown queue, show":            {wire.OpQueueShow, payload(wire.QueueShow{Name: "nowhere"}), wire.CodeNoQueue},
		"unknown queue, delete":          {wire.OpQueueDelete, payload(wire.QueueDelete{Incarnation: inc, Group: 1, Number: 99}), wire.CodeNoQueue},
		"unknown queue, purge":           {wire.OpQueuePurge, payload(wire.QueuePurge{Incarnation: inc, Group: 1, Number: 99}), wire.CodeNoQueue},
		"bad queue name":                 {wire.OpQueueCreate, payload(wire.QueueCreate{Incarnation: inc, Group: 1, Name: "a/b"}), wire.CodeMalformed},
		"lease time below the least":     {wire.OpQueueCreate, payload(wire.QueueCreate{Incarnation: inc, Group: 1, Name: "q", Settings: wire.QueueSettings{LeaseTime: 1}}), wire.CodeBadSettings},
		"body over the limit":            {wire.OpPublish, message(func(m *wire.Message) { m.Body = make([]byte, bodyMax+1) }), wire.CodeTooLarge},
		"request over an entry":          {wire.OpPublish, message(func(m *wire.Message) { m.Body = make([]byte, wire.PayloadBytesMax-200) }), wire.CodeTooLarge},
		"biz-id over the limit":          {wire.OpPublish, message(func(m *wire.Message) { m.BizID = strings.Repeat("x", wire.BizIDBytesMax+1) }), wire.CodeMalformed},
		"too many headers":               {wire.OpPublish, message(func(m *wire.Message) { m.Headers = make([]wire.Header, wire.HeadersMax+1) }), wire.CodeMalformed},
		"ordering key and priority":      {wire.OpPublish, message(func(m *wire.Message) { m.OrderingKey, m.Priority = "k", 1 }), wire.CodeMalformed},
		"checksum of another body":       {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Publishes[0].Checksum++ }), wire.CodeMalformed},
		"floor above a sequence":         {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Floor = 2 }), wire.CodeMalformed},
		"sequence 0":                     {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Publishes[0].Sequence, f.Floor = 0, 0 }), wire.CodeMalformed},
		"no session":                     {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Session = 99 }), wire.CodeSessionExpired},
		"epoch to come":                  {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Epoch = 9 }), wire.CodeEpochMismatch},
		"beyond the window":              {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Publishes[0].Sequence = 1 + fsm.SessionWindow }), wire.CodeWindowFull},
		"another incarnation":            {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Incarnation++ }), wire.CodeWrongCluster},
		"another group":                  {wire.OpPublish, frame(func(f *wire.PublishFrame) { f.Group = 7 }), wire.CodeWrongGroup},
		"credit beyond the limit":        {wire.OpAttach, attach(func(a *wire.Attach) { a.Credit = fsm.DefaultLimits().CreditMax + 1 }), wire.CodeMalformed},
		"settle by nobody":               {wire.OpSettle, payload(wire.Settle{Incarnation: inc, Group: 1, Consumer: clustertest.NewConsumer(), Done: 1, Items: []wire.SettleItem{{From: 1, To: 1, Verb: wire.VerbAck}}}), wire.CodeConsumerGone},
		"range that is half the numbers": {wire.OpSettle, payload(wire.Settle{Incarnation: inc, Group: 1, Consumer: consumer, Done: 1, Items: []wire.SettleItem{{From: 1, To: 1 << 63, Verb: wire.VerbAck}}}), wire.CodeMalformed},
		"unknown verb":                   {wire.OpSettle, payload(wire.Settle{Incarnation: inc, Group: 1, Consumer: consumer, Done: 1, Items: []wire.SettleItem{{From: 1, To: 1, Verb: 77}}}), wire.CodeMalformed},
		"unknown request":                {wire.Op(200), nil, wire.CodeUnknownOp},
		"an answer as a request":         {wire.OpDeliver, payload(wire.Deliver{}), wire.CodeUnknownOp},
		"no such node":                   {wire.OpMemberRemove, payload(wire.MemberChange{Node: "n99"}), wire.CodeNoNode},
	} {
		t.Run(name, func(t *testing.T) {
			_, reply, err := r.Call(bounded(t), bad.op, bad.payload)
			var code wire.Code
			var e *wire.Error
			switch {
			case errors.As(err, &e):
				code = e.Code
				if e.Text == "" {
					t.Errorf("no text for people: %+v", e)
				}
			case err != nil:
				t.Fatalf("the connection is gone: %v", err)
			default:
				code = wire.CodeOf(statusIn(t, bad.op, reply))
			}
			if code != bad.code {
				t.Errorf("%v, want %v (%v, % x)", code, bad.code, err, reply[:min(len(reply), 40)])
			}
		})
	}
	atTheLimit := message(func(m *wire.Message) { m.Body = make([]byte, bodyMax) })
	_, reply, err := r.Call(bounded(t), wire.OpPublish, atTheLimit)
	if err != nil || statusIn(t, wire.OpPublish, reply) != wire.StatusOK {
		t.Fatalf("a body of the limit: %v, % x", err, reply)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Stored == 1 })

	cl := connect(t, c)
	if _, err := producerOf(t, cl, "nowhere").Publish(bounded(t), client.Message{Body: []byte("x")}); !errors.Is(err, client.ErrNoQueue) {
		t.Errorf("the client publishes to an unknown queue: %v", err)
	}
	nobody := func(context.Context, *client.Delivery) error { return nil }
	if err := cl.Consume(bounded(t), "nowhere", nobody); !errors.Is(err, client.ErrNoQueue) {
		t.Errorf("the client consumes an unknown queue: %v", err)
	}
	if _, err := producerOf(t, cl, "orders").Publish(bounded(t), client.Message{Body: make([]byte, bodyMax+1)}); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("the client publishes a large body: %v", err)
	}
	if c.Leader() != leader {
		t.Error("the leader has changed")
	}
	stillServes(t, c)
}

// statusIn is the status in an answer: of the first result of a publish, else
// its first field.
func statusIn(t *testing.T, op wire.Op, reply []byte) wire.Status {
	t.Helper()
	if op == wire.OpPublish {
		p := must(wire.DecodePublishReply(reply))(t)
		if len(p.Results) != 1 {
			t.Fatalf("results: %+v", p)
		}
		return p.Results[0].Status
	}
	r := pack.NewReader(reply)
	r.Array(64)
	st := wire.Status(r.Uint8())
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return st
}

// TestBadInput_Bombs: lengths and nestings that would cost gigabytes, at each
// place of each request, cost next to nothing and are answered as malformed.
func TestBadInput_Bombs(t *testing.T) {
	c := clustertest.New(t, 1)
	_, r, s := ready(t, c, "orders")
	const grp = 1
	inc := r.Incarnation
	consumer := clustertest.NewConsumer()
	ms := []wire.Message{{Body: []byte("body"), BizID: "biz", Headers: []wire.Header{{Name: "n", Value: "v"}}}}
	requests := map[wire.Op][]byte{
		wire.OpOpenSession:  payload(wire.OpenSession{Incarnation: inc, Group: grp, Named: true, Name: "svc", Label: "label"}),
		wire.OpCloseSession: payload(wire.CloseSession{Incarnation: inc, Group: grp, Session: 99, Epoch: 1}),
		wire.OpPublish: payload(wire.PublishFrame{Incarnation: inc, Group: grp, Session: s.Session.Number, Epoch: 1, Floor: 1, Queue: "orders",
			Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("orders", ms), Messages: ms}}}),
		wire.OpSeal:           payload(wire.Seal{Incarnation: inc, Group: grp, Session: 99, Epoch: 1, Sequences: []uint64{1, 2}}),
		wire.OpAttach:         payload(wire.Attach{Incarnation: inc, Group: grp, Consumer: consumer, N: 1, Queue: "orders", Credit: 1, Done: 1, Unsettled: []wire.Range{{From: 1, To: 2}}}),
		wire.OpLeave:          payload(wire.Leave{Incarnation: inc, Group: grp, Consumer: consumer, N: 1, Done: 1, NotHandled: []wire.Range{{From: 1, To: 2}}}),
		wire.OpSettle:         payload(wire.Settle{Incarnation: inc, Group: grp, Consumer: consumer, Done: 1, Items: []wire.SettleItem{{From: 1, To: 1, Verb: wire.VerbAck}}}),
		wire.OpQueueCreate:    payload(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "q"}),
		wire.OpQueueDelete:    payload(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 99}),
		wire.OpQueuePurge:     payload(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 99}),
		wire.OpOutcome:        payload(wire.Outcome{Incarnation: inc, Group: grp, Session: 1, Sequence: 1}),
		wire.OpQueueShow:      payload(wire.QueueShow{Name: "orders"}),
		wire.OpQueueList:      payload(wire.QueueList{}),
		wire.OpNodeStatus:     payload(wire.NodeStatusRequest{}),
		wire.OpDigest:         payload(wire.DigestRequest{}),
		wire.OpMembers:        payload(wire.MembersRequest{}),
		wire.OpMemberAdd:      payload(wire.MemberChange{Node: "n9"}),
		wire.OpMemberRemove:   payload(wire.MemberChange{Node: "n9"}),
		wire.OpMemberTransfer: payload(wire.MemberChange{Node: "n9"}),
	}
	bombs := map[string][]byte{
		"array of 4 billion":  {0xdd, 0xff, 0xff, 0xff, 0xff},
		"map of 4 billion":    {0xdf, 0xff, 0xff, 0xff, 0xff},
		"string of 4 GiB":     {0xdb, 0xff, 0xff, 0xff, 0xff},
		"bytes of 4 GiB":      {0xc6, 0xff, 0xff, 0xff, 0xff},
		"extension of 4 GiB":  {0xc9, 0xff, 0xff, 0xff, 0xff, 1},
		"65,535 nested":       bytes.Repeat([]byte{0x91}, 65_535),
		"nested wide arrays":  bytes.Repeat([]byte{0xdd, 0, 0, 0xff, 0xff}, 1_000),
		"the end of the data": {},
	}
	sent := 0
	bytesAllocated := allocated(func() {
		for op, good := range requests {
			for name, bomb := range bombs {
				for _, at := range elements(t, good) { // the bomb instead of what stands there and follows
					p := append(append([]byte(nil), good[:at]...), bomb...)
					sent += len(p)
					_, reply, err := r.Call(bounded(t), op, p)
					var e *wire.Error
					if !errors.As(err, &e) {
						t.Fatalf("%v, %s at byte %d of %d: answered % x, %v", op, name, at, len(good), reply, err)
					}
					if e.Code != wire.CodeMalformed && e.Code != wire.CodeWrongCluster && e.Code != wire.CodeWrongGroup && e.Code != wire.CodeTooLarge {
						t.Errorf("%v, %s at byte %d of %d: %v", op, name, at, len(good), e)
					}
				}
			}
		}
	})
	t.Logf("%d bytes sent, %d allocated", sent, bytesAllocated)
	if most := uint64(sent)*8 + 64<<20; bytesAllocated > most {
		t.Errorf("%d bytes were allocated for %d bytes of requests, want at most %d", bytesAllocated, sent, most)
	}
	stillServes(t, c)
}

// elements are the places in an encoded request where an element begins.
func elements(t *testing.T, b []byte) (places []int) {
	for i := 0; i < len(b); {
		places = append(places, i)
		switch c := b[i]; {
		case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3, c&0xf0 == 0x90:
			i++ // a small number, nil, false, true; an array, whose elements follow
		case c&0xe0 == 0xa0:
			i += 1 + int(c&0x1f)
		case c == 0xc4, c == 0xd9:
			i += 2 + int(b[i+1])
		case c == 0xcc, c == 0xd0:
			i += 2
		case c == 0xcd, c == 0xd1:
			i += 3
		case c == 0xce, c == 0xd2:
			i += 5
		case c == 0xcf, c == 0xd3:
			i += 9
		default:
			t.Fatalf("byte %#x at %d of % x", c, i, b)
		}
	}
	return places
}

// TestBadInput_StoppedQuorum_SaysSoWithinTheDeadline: with most nodes dead every
// call says that there is no leader when its own deadline ends, not later.
func TestBadInput_StoppedQuorum_SaysSoWithinTheDeadline(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	heard := make(chan error, 64)
	cl := connect(t, c, client.WithConnectionHook(func(e client.ConnectionEvent) {
		if e.Link == "produce" && !e.Connected {
			heard <- e.Err
		}
	}))
	p := producerOf(t, cl, "orders")
	if _, err := p.Publish(bounded(t), client.Message{Body: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	dead := c.Others(leader)
	for _, n := range dead {
		c.Kill(n)
	}
	clustertest.Eventually(t, func() string {
		if c.Leader() != nil {
			return "it still leads"
		}
		return ""
	})
	// A copy that is written before the client hears of it has an unknown outcome,
	// rightly: its connection ends without an answer to it.
	await(t, "the client hears that the leader is none", heard)
	for what, call := range map[string]func(context.Context) error{
		"publish": func(ctx context.Context) error {
			_, err := p.Publish(ctx, client.Message{Body: []byte("b")})
			return err
		},
		"show": func(ctx context.Context) error {
			_, err := cl.Admin().Queue(ctx, "orders")
			return err
		},
		"create": func(ctx context.Context) error {
			_, err := cl.Admin().CreateQueue(ctx, "another", client.QueueSettings{})
			return err
		},
	} {
		wantNoLeader(t, what, call)
	}
	if _, err := client.Dial(bounded(t), c.Node(leader.Index).Address); err != nil {
		t.Errorf("dial of the living node: %v", err)
	}
	// A raw request is refused at once: nothing was appended.
	_, err := dial(t, leader).Queue("orders")
	if e := asWireError(err); e == nil || e.Code != wire.CodeNoLeader || !e.Retriable {
		t.Errorf("raw: %v", err)
	}
	c.Restart(dead...)
	if _, err := p.Publish(bounded(t), client.Message{Body: []byte("c")}); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Stored == 2 })
	stillServes(t, c)
}
