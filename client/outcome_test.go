package client

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
)

func TestOutcome_SaysNeverOnlyFromASeal(t *testing.T) {
	cases := []struct {
		status wire.Status
		want   OutcomeState
	}{
		{wire.StatusOK, Stored},
		{wire.StatusSealed, Never},
		{wire.StatusNotStored, NotStoredSoFar},
		{wire.StatusBelowFloor, Unknown},
		{wire.StatusSessionExpired, Unknown},
		{wire.StatusWrongIncarnation, Unknown},
	}
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n.mu.Lock()
		n1.auto[wire.OpQueueList] = func(r *fakeRequest) {
			r.reply(wire.QueuesReply{Queues: []wire.QueueInfo{{Number: 7, Name: "orders"}}})
		}
		n.mu.Unlock()
		for _, tc := range cases {
			n.mu.Lock()
			n1.auto[wire.OpOutcome] = func(r *fakeRequest) {
				if o := decoded(r, wire.DecodeOutcome); o.Incarnation != fakeIncarnation || o.Session != 42 || o.Sequence != 9 {
					t.Errorf("request %+v", o)
				}
				r.reply(wire.OutcomeReply{Result: wire.PublishResult{Sequence: 9, Status: tc.status, Queue: 7, Offset: 3, Count: 1}, Epoch: 5})
			}
			n.mu.Unlock()
			id, err := ParseInnerMsgID("s1.42.9")
			if err != nil {
				t.Fatal(err)
			}
			o, err := c.Outcome(t.Context(), id)
			if err != nil || o.State != tc.want || (o.State == Unknown) != (o.Reason != "") {
				t.Fatalf("%v: %+v, %v", tc.status, o, err)
			}
			if o.State == Stored && o.Message.String() != "orders/3" {
				t.Fatalf("stored as %v", o.Message)
			}
		}
	})
}

// The client seals in the background what a caller gave up. Whoever asks meanwhile
// gets that outcome, not that the cluster has forgotten it.
func TestOutcome_SealedInTheBackgroundWhileItIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		id := c.complete(InnerMsgID{Session: wire.SessionID{Group: 1, Number: 42}, Sequence: 9})
		for name, ask := range map[string]func() (Outcome, error){
			"outcome": func() (Outcome, error) { return c.Outcome(t.Context(), id) },
			"seal":    func() (Outcome, error) { return c.Seal(t.Context(), id) },
		} {
			type result struct {
				o   Outcome
				err error
			}
			done := make(chan result)
			go func() {
				o, err := ask()
				done <- result{o, err}
			}()
			r := n.order[0].expect(wire.OpOutcome)
			c.remember(Outcome{ID: id, State: Never})
			r.reply(wire.OutcomeReply{Result: wire.PublishResult{Sequence: 9, Status: wire.StatusBelowFloor}, Epoch: 5})
			if got := <-done; got.err != nil || got.o.State != Never {
				t.Errorf("%s: %+v", name, got)
			}
			c.mu.Lock()
			clear(c.resolved)
			c.mu.Unlock()
		}
	})
}

func TestSeal_UsesThePresentEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		epoch := uint64(5)
		n.mu.Lock()
		n1.auto[wire.OpOutcome] = func(r *fakeRequest) {
			r.reply(wire.OutcomeReply{Result: wire.PublishResult{Sequence: 9, Status: wire.StatusNotStored}, Epoch: epoch})
		}
		n.mu.Unlock()
		type result struct {
			o   Outcome
			err error
		}
		done := make(chan result)
		go func() {
			o, err := c.Seal(t.Context(), InnerMsgID{Session: wire.SessionID{Group: 1, Number: 42}, Sequence: 9})
			done <- result{o, err}
		}()
		r := n1.expect(wire.OpSeal)
		n.mu.Lock()
		epoch = 6 // the session was opened again between the two requests
		n.mu.Unlock()
		r.reply(wire.SealReply{Status: wire.StatusFenced})
		r = n1.expect(wire.OpSeal)
		if s := decoded(r, wire.DecodeSeal); s.Epoch != 6 || s.Session != 42 || len(s.Sequences) != 1 || s.Sequences[0] != 9 {
			t.Fatalf("seal %+v", s)
		}
		r.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: 9, Status: wire.StatusSealed}}})
		if got := <-done; got.err != nil || got.o.State != Never {
			t.Fatalf("%+v", got)
		}
	})
}

func TestAdmin_Queues(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		info := wire.QueueInfo{Number: 7, Name: "orders", Revision: 3}
		answer := wire.QueueReply{Status: wire.StatusOK, Info: info}
		answers := map[wire.Op]func(r *fakeRequest){
			wire.OpQueueShow: func(r *fakeRequest) { r.reply(answer) },
			wire.OpQueueCreate: func(r *fakeRequest) {
				m := decoded(r, wire.DecodeQueueCreate)
				if m.Settings.LeaseTime == time.Minute {
					r.reply(answer)
				} else {
					r.reply(wire.QueueReply{Status: wire.StatusConflict, Text: "lease time is 1m0s"})
				}
			},
			wire.OpQueuePurge: func(r *fakeRequest) {
				m := decoded(r, wire.DecodeQueuePurge)
				if m.Number != 7 || m.Revision != 3 || m.Nonce == (wire.Nonce{}) {
					t.Errorf("purge %+v", m)
				}
				r.reply(wire.QueueReply{Status: wire.StatusOK, Removed: 5, Info: info})
			},
			wire.OpQueueDelete: func(r *fakeRequest) {
				if m := decoded(r, wire.DecodeQueueDelete); m.Number != 7 {
					t.Errorf("delete %+v", m)
				}
				r.reply(wire.QueueReply{Status: wire.StatusOK, Removed: 6})
			},
			wire.OpQueueList: func(r *fakeRequest) {
				if decoded(r, wire.DecodeQueueList).From == 1 {
					r.reply(wire.QueuesReply{Queues: []wire.QueueInfo{info}, Next: 8})
				} else {
					r.reply(wire.QueuesReply{Queues: []wire.QueueInfo{{Number: 9, Name: "invoices"}}})
				}
			},
		}
		n.mu.Lock()
		for op, f := range answers {
			n1.auto[op] = f
		}
		n.mu.Unlock()
		a, ctx := c.Admin(), t.Context()
		if q, err := a.CreateQueue(ctx, "orders", QueueSettings{LeaseTime: time.Minute}); err != nil || q.Number != 7 {
			t.Fatal(q, err)
		}
		if _, err := a.CreateQueue(ctx, "orders", QueueSettings{}); !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
		if _, err := a.CreateQueue(ctx, "no spaces", QueueSettings{}); !errors.Is(err, ErrBadName) {
			t.Fatal(err)
		}
		if removed, err := a.PurgeQueue(ctx, "orders"); err != nil || removed != 5 {
			t.Fatal(removed, err)
		}
		if removed, err := a.DeleteQueue(ctx, "orders"); err != nil || removed != 6 {
			t.Fatal(removed, err)
		}
		if qs, err := a.Queues(ctx); err != nil || len(qs) != 2 || qs[0].Name != "invoices" || qs[1].Name != "orders" {
			t.Fatal(qs, err)
		}
		n.mu.Lock()
		answer = wire.QueueReply{Status: wire.StatusNoQueue}
		n.mu.Unlock()
		if _, err := a.Queue(ctx, "orders"); !errors.Is(err, ErrNoQueue) {
			t.Fatal(err)
		}
	})
}

func TestAdmin_Nodes_AsksEachAndTellsWhoDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n.mu.Lock()
		for _, node := range n.order {
			node.auto[wire.OpNodeStatus] = func(r *fakeRequest) { r.reply(wire.NodeStatus{Node: node.name, Term: 1}) }
		}
		n.mu.Unlock()
		n.order[2].setDown(errors.New("down"))
		reports, err := c.Admin().Nodes(t.Context())
		if err != nil || len(reports) != 3 {
			t.Fatal(reports, err)
		}
		for i, r := range reports {
			if (r.Err != nil) != (i == 2) || i < 2 && r.Status.Node != r.Node {
				t.Fatalf("report %+v", r)
			}
		}
	}, "n1", "n2", "n3")
}

func TestAdmin_Members(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n.mu.Lock()
		n1.auto[wire.OpMembers] = func(r *fakeRequest) { r.reply(wire.Members{Leader: "n1", Members: []wire.Member{{Node: "n1"}}}) }
		n1.auto[wire.OpMemberRemove] = func(r *fakeRequest) { r.fail(wire.CodeMembership, "") }
		n1.auto[wire.OpMemberAdd] = func(r *fakeRequest) { r.reply(wire.StatusReply{Status: wire.StatusOK}) }
		n1.auto[wire.OpDigest] = func(r *fakeRequest) { r.reply(wire.DigestReply{Index: 3, Digest: 4}) }
		n.mu.Unlock()
		a, ctx := c.Admin(), t.Context()
		if m, err := a.Members(ctx); err != nil || m.Leader != "n1" || len(m.Members) != 1 {
			t.Fatal(m, err)
		}
		if err := a.AddMember(ctx, "n2"); err != nil {
			t.Fatal(err)
		}
		if err := a.RemoveMember(ctx, "n1"); !errors.Is(err, ErrMembership) {
			t.Fatal(err)
		}
		if i, d, err := a.Digest(ctx); err != nil || i != 3 || d != 4 {
			t.Fatal(i, d, err)
		}
		// A lost answer to a transfer is not asked for again: it would move on.
		moved := make(chan error)
		// Leadership moves before the answer comes, and the link with it.
		go func() { moved <- a.TransferLeadership(ctx, "n2") }()
		r := n1.expect(wire.OpMemberTransfer)
		n.lead(2, "n2", true)
		synctest.Wait()
		r.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		n.lead(3, "n1", true)
		synctest.Wait()
		go func() { moved <- a.TransferLeadership(ctx, "n2") }()
		n1.expect(wire.OpMemberTransfer).conn.cut()
		if err := <-moved; !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		n1.quiet()
	}, "n1", "n2")
}
