package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"onceq/transport/wire"
)

// shows makes the node answer for the queue with number 7 and a revision.
func (node *fakeNode) shows(info wire.QueueInfo) {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	node.auto[wire.OpQueueShow] = func(r *fakeRequest) {
		info.Name = decoded(r, wire.DecodeQueueShow).Name
		r.reply(wire.QueueReply{Status: wire.StatusOK, Info: info})
	}
}

func (node *fakeNode) members() {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	node.auto[wire.OpMembers] = func(r *fakeRequest) { r.reply(wire.Members{}) }
}

func got[T any](t *testing.T, f func() (T, error)) (chan T, chan error) {
	t.Helper()
	v, e := make(chan T, 1), make(chan error, 1)
	go func() {
		a, err := f()
		v <- a
		e <- err
	}()
	return v, e
}

func TestUpdateQueue_LostReply_TheSameNonceAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7, Revision: 3, Settings: QueueSettings{LeaseTime: time.Minute, LengthMax: 5}})
		_, failed := got(t, func() (QueueInfo, error) {
			return c.Admin().UpdateQueue(t.Context(), "orders", func(s *QueueSettings) { s.DeliveryLimit = 4 })
		})
		r := n1.expect(wire.OpQueueUpdate)
		first := decoded(r, wire.DecodeQueueUpdate)
		if first.Number != 7 || first.Revision != 3 || first.Settings != (QueueSettings{LeaseTime: time.Minute, LengthMax: 5, DeliveryLimit: 4}) {
			t.Fatalf("sent %+v", first)
		}
		r.conn.cut()
		r = n1.expect(wire.OpQueueUpdate)
		if second := decoded(r, wire.DecodeQueueUpdate); second != first {
			t.Fatalf("sent %+v, then %+v", first, second)
		}
		r.reply(wire.QueueReply{Status: wire.StatusOK, Info: wire.QueueInfo{Number: 7, Revision: 4}})
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	})
}

// TestUpdateQueue_ChangedMeanwhile_IsAppliedToWhatThereIs: two people change two
// settings at once, and both are changed.
func TestUpdateQueue_ChangedMeanwhile_IsAppliedToWhatThereIs(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7, Revision: 3})
		_, failed := got(t, func() (QueueInfo, error) {
			return c.Admin().UpdateQueue(t.Context(), "orders", func(s *QueueSettings) { s.DeliveryLimit = 4 })
		})
		r := n1.expect(wire.OpQueueUpdate)
		first := decoded(r, wire.DecodeQueueUpdate)
		n1.shows(wire.QueueInfo{Number: 7, Revision: 4, Settings: QueueSettings{LengthMax: 9}})
		r.reply(wire.QueueReply{Status: wire.StatusRevision})
		r = n1.expect(wire.OpQueueUpdate)
		second := decoded(r, wire.DecodeQueueUpdate)
		if second.Revision != 4 || second.Settings != (QueueSettings{LengthMax: 9, DeliveryLimit: 4}) || second.Nonce == first.Nonce {
			t.Fatalf("sent %+v", second)
		}
		r.reply(wire.QueueReply{Status: wire.StatusOK, Info: wire.QueueInfo{Number: 7, Revision: 5}})
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	})
}

func TestPauseQueue_LostReply_IsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		for _, paused := range []bool{true, false} {
			n1.shows(wire.QueueInfo{Number: 7, Revision: 3, Paused: !paused})
			call := c.Admin().PauseQueue
			if !paused {
				call = c.Admin().ResumeQueue
			}
			info, failed := got(t, func() (QueueInfo, error) { return call(t.Context(), "orders") })
			first := n1.expect(wire.OpQueuePause)
			nonce := decoded(first, wire.DecodeQueuePause).Nonce
			first.conn.cut()
			r := n1.expect(wire.OpQueuePause)
			if m := decoded(r, wire.DecodeQueuePause); m.Number != 7 || m.Revision != 3 || m.Nonce != nonce || m.Paused != paused {
				t.Fatalf("sent %+v", m)
			}
			r.reply(wire.QueueReply{Status: wire.StatusOK, Info: wire.QueueInfo{Number: 7, Paused: paused}})
			if err := errors.Join(<-failed, nil); err != nil || (<-info).Paused != paused {
				t.Fatal(err)
			}
		}
	})
}

func TestEditMessages_LostReply_IsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7})
		a := c.Admin()
		ctx := t.Context()
		places := []Place{{Lane: 3, Offset: 17}, {Offset: 4}}
		for verb, call := range map[wire.EditVerb]func() ([]EditState, error){
			wire.EditDelete:  func() ([]EditState, error) { return a.DeleteMessages(ctx, "orders", places...) },
			wire.EditRequeue: func() ([]EditState, error) { return a.RequeueMessages(ctx, "orders", places...) },
			wire.EditRelease: func() ([]EditState, error) { return a.ReleaseMessages(ctx, "orders", places...) },
			wire.EditMove:    func() ([]EditState, error) { return a.MoveMessages(ctx, "orders", "shop", places...) },
		} {
			states, failed := got(t, call)
			n1.expect(wire.OpEdit).conn.cut()
			r := n1.expect(wire.OpEdit)
			m := decoded(r, wire.DecodeEdit)
			if m.Number != 7 || m.Verb != verb || len(m.Places) != 2 || m.Places[0] != places[0] || (m.Target == "shop") != (verb == wire.EditMove) {
				t.Fatalf("sent %+v", m)
			}
			r.reply(wire.EditReply{Status: wire.StatusOK, States: []EditState{EditNotHere, EditLeased}})
			if s, err := <-states, <-failed; err != nil || len(s) != 2 || s[0] != EditNotHere || s[1] != EditLeased {
				t.Fatal(s, err)
			}
		}
		_, failed := got(t, func() ([]EditState, error) { return a.MoveMessages(ctx, "orders", "none", places...) })
		n1.expect(wire.OpEdit).reply(wire.EditReply{Status: wire.StatusNoQueue})
		if err := <-failed; !errors.Is(err, ErrNoQueue) {
			t.Fatal(err)
		}
		if _, err := a.MoveMessages(ctx, "orders", "orders", places...); !errors.Is(err, ErrBadOptions) {
			t.Fatal(err)
		}
	})
}

// TestEditMessages_Many_GoInSteps: one request names at most so many.
func TestEditMessages_Many_GoInSteps(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7})
		places := make([]Place, wire.EditPlacesMax+10)
		states, failed := got(t, func() ([]EditState, error) { return c.Admin().DeleteMessages(t.Context(), "orders", places...) })
		for _, want := range []int{wire.EditPlacesMax, 10} {
			r := n1.expect(wire.OpEdit)
			m := decoded(r, wire.DecodeEdit)
			if len(m.Places) != want {
				t.Fatalf("%d places, want %d", len(m.Places), want)
			}
			done := make([]EditState, want)
			for i := range done {
				done[i] = EditDone
			}
			r.reply(wire.EditReply{Status: wire.StatusOK, States: done})
		}
		if s, err := <-states, <-failed; err != nil || len(s) != len(places) {
			t.Fatal(len(s), err)
		}
	})
}

func TestPeek_GoesOnBehindTheLast(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		seen, failed := got(t, func() (Peeked, error) {
			return c.Admin().Peek(t.Context(), "orders", PeekOptions{State: Parked, From: Place{Lane: 1, Offset: 5}, Limit: 2, Bodies: true})
		})
		r := n1.expect(wire.OpPeek)
		if m := decoded(r, wire.DecodePeek); m != (wire.Peek{Queue: "orders", State: wire.MessageParked, FromLane: 1, FromOffset: 5, Limit: 2, Bodies: true}) {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.PeekReply{Status: wire.StatusOK, More: true, Messages: []wire.MessageInfo{
			{Lane: 1, Offset: 7, State: wire.MessageParked, Reason: "r", OriginQueue: "shop", OriginOffset: 3, Message: encoded(wire.Message{Body: []byte("x"), BizID: "b"})},
			{Lane: 0, Offset: 2, State: wire.MessageParked},
		}})
		p := <-seen
		if err := <-failed; err != nil || !p.More || p.Next != (Place{Offset: 3}) || len(p.Messages) != 2 {
			t.Fatalf("%+v, %v", p, err)
		}
		if m := p.Messages[0]; m.ID() != "orders/p1.7" || m.Content == nil || m.Content.BizID != "b" || m.Reason != "r" || m.Origin() != "shop/3" {
			t.Errorf("%+v", m)
		}
		if m := p.Messages[1]; m.Content != nil || m.Origin() != "" {
			t.Errorf("%+v", m)
		}
	})
}

func TestMessage_NotThere(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		_, failed := got(t, func() (MessageInfo, error) { return c.Admin().Message(t.Context(), "orders", Place{Offset: 5}) })
		n1.expect(wire.OpMessageShow).reply(wire.PeekReply{Status: wire.StatusNotStored})
		if err := <-failed; !errors.Is(err, ErrNoMessage) {
			t.Fatal(err)
		}
	})
}

func TestEndSession_LostReply_AndOneThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpCloseSession)
		id := wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: 9}
		info, failed := got(t, func() (SessionInfo, error) { return c.Admin().Session(t.Context(), 9) })
		n1.expect(wire.OpSessions).reply(wire.SessionsReply{Sessions: []wire.SessionInfo{{Session: id, Epoch: 4, Named: true, Name: "svc"}}})
		s, err := <-info, <-failed
		if err != nil || s.Name != "svc" {
			t.Fatalf("%+v, %v", s, err)
		}
		_, ended := got(t, func() (bool, error) { return true, c.Admin().EndSession(t.Context(), s) })
		n1.expect(wire.OpCloseSession).conn.cut()
		r := n1.expect(wire.OpCloseSession)
		if m := decoded(r, wire.DecodeCloseSession); m.Session != 9 || m.Epoch != 4 {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		_, failed = got(t, func() (SessionInfo, error) { return c.Admin().Session(t.Context(), 9) })
		n1.expect(wire.OpSessions).reply(wire.SessionsReply{Sessions: []wire.SessionInfo{{Session: wire.SessionID{Number: 10}}}})
		if err := <-failed; !errors.Is(err, ErrNoSession) {
			t.Fatal(err)
		}
	})
}

func TestDeleteQueue_ThatTakesDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7})
		_, failed := got(t, func() (uint64, error) { return c.Admin().DeleteQueue(t.Context(), "dead") })
		r := n1.expect(wire.OpQueueDelete)
		if m := decoded(r, wire.DecodeQueueDelete); m.Force {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.QueueReply{Status: wire.StatusConflict, Text: "it takes the dead letters of queue orders"})
		if err := <-failed; !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
		removed, failed := got(t, func() (uint64, error) { return c.Admin().ForceDeleteQueue(t.Context(), "dead") })
		r = n1.expect(wire.OpQueueDelete)
		if m := decoded(r, wire.DecodeQueueDelete); !m.Force {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.QueueReply{Status: wire.StatusOK, Removed: 3})
		if err := <-failed; err != nil || <-removed != 3 {
			t.Fatal(err)
		}
	})
}

// A queue that was deleted since somebody looked is created only when that is known:
// the number of deletions goes with the request.
func TestCreateQueue_QueuesWereDeletedSince_IsAskedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		_, failed := got(t, func() (QueueInfo, error) { return c.Admin().CreateQueue(t.Context(), "orders", QueueSettings{}) })
		r := n1.expect(wire.OpQueueCreate)
		if m := decoded(r, wire.DecodeQueueCreate); m.Deletions != 0 {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.QueueReply{Status: wire.StatusRevision, Deletions: 3})
		r = n1.expect(wire.OpQueueCreate)
		if m := decoded(r, wire.DecodeQueueCreate); m.Deletions != 3 {
			t.Fatalf("sent %+v", m)
		}
		r.reply(wire.QueueReply{Status: wire.StatusOK, Deletions: 3, Info: wire.QueueInfo{Number: 7}})
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	})
}

// A refusal is not the last word while an earlier copy may be on its way.
func TestDeleteQueue_RefusedAfterALostCopy_IsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.shows(wire.QueueInfo{Number: 7})
		_, failed := got(t, func() (uint64, error) { return c.Admin().DeleteQueue(t.Context(), "orders") })
		n1.expect(wire.OpQueueDelete).conn.cut()
		n1.expect(wire.OpQueueDelete).reply(wire.QueueReply{Status: wire.StatusConflict, Text: "another needs it"})
		if err := <-failed; !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
	})
}

// TestAdmin_ContextEndsWithAnErrorOfOurs_ItIsNoAnswer: errgroup cancels with the first
// error, here of another call.
func TestAdmin_ContextEndsWithAnErrorOfOurs_ItIsNoAnswer(t *testing.T) {
	for what, c := range map[string]struct {
		op    wire.Op
		cause error
		call  func(ctx context.Context, a *Admin) error
	}{
		"delete queue": {wire.OpQueueDelete, ErrNoQueue, func(ctx context.Context, a *Admin) error {
			_, err := a.DeleteQueue(ctx, "orders")
			return err
		}},
		"end session": {wire.OpCloseSession, ErrSessionExpired, func(ctx context.Context, a *Admin) error {
			return a.EndSession(ctx, SessionInfo{Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: 9}})
		}},
		"remove member": {wire.OpMemberRemove, ErrNoNode, func(ctx context.Context, a *Admin) error { return a.RemoveMember(ctx, "n3") }},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, client *Client) {
				n1 := n.order[0]
				n1.shows(wire.QueueInfo{Number: 7})
				n1.members()
				n.mu.Lock()
				delete(n1.auto, c.op)
				n.mu.Unlock()
				ctx, cancel := context.WithCancelCause(t.Context())
				failed := make(chan error, 1)
				go func() { failed <- c.call(ctx, client.Admin()) }()
				n1.expect(c.op)
				cancel(c.cause)
				if err := <-failed; !errors.Is(err, ErrOutcomeUnknown) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestRedrive_LostReply_TheSameStepAgain: a step keeps its nonce until it is answered,
// the next has another and names the edit that the last one was told of.
func TestRedrive_LostReply_TheSameStepAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		where := []Condition{{Field: FieldBody, Match: MatchRegexp, Value: "x"}}
		result, failed := got(t, func() (Redriven, error) {
			return c.Admin().Redrive(t.Context(), "dead", RedriveOptions{To: "orders", Where: where})
		})
		first := n1.expect(wire.OpRedrive)
		if m := decoded(first, wire.DecodeRedrive); m.Number != 0 || m.Queue != "dead" || m.Target != "orders" || len(m.Ends) != 0 || m.Dry || m.Where[0] != where[0] {
			t.Fatalf("sent %+v", m)
		}
		ends := []wire.Place{{Lane: 2, Offset: 9}}
		first.reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Edited: wire.Nonce{1}, Ends: ends, More: true})

		lost := n1.expect(wire.OpRedrive)
		step := decoded(lost, wire.DecodeRedrive)
		if step.Number != 7 || step.Edited != (wire.Nonce{1}) || step.Nonce == (wire.Nonce{}) || len(step.Ends) != 1 || step.Ends[0] != ends[0] || step.From != (wire.RedriveFrom{}) {
			t.Fatalf("sent %+v", step)
		}
		lost.conn.cut()
		again := n1.expect(wire.OpRedrive)
		if m := decoded(again, wire.DecodeRedrive); m.Nonce != step.Nonce || m.Edited != step.Edited {
			t.Fatalf("sent %+v, then %+v", step, m)
		}
		again.reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Edited: step.Nonce, Moved: 3, Seen: 3, Repeated: true, More: true})

		next := n1.expect(wire.OpRedrive)
		m := decoded(next, wire.DecodeRedrive)
		if m.Nonce == step.Nonce || m.Edited != step.Nonce || m.From != (wire.RedriveFrom{}) {
			t.Fatalf("sent %+v after %+v", m, step)
		}
		// Somebody else edits the queue: from the same place, with a new nonce.
		next.reply(wire.RedriveReply{Status: wire.StatusRevision, Number: 7, Edited: wire.Nonce{5}, More: true})
		next = n1.expect(wire.OpRedrive)
		if a := decoded(next, wire.DecodeRedrive); a.Nonce == m.Nonce || a.Edited != (wire.Nonce{5}) || a.From != m.From {
			t.Fatalf("sent %+v after %+v", a, m)
		}
		from := wire.RedriveFrom{State: wire.MessageParked, Lane: 2, Offset: 4}
		next.reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Edited: wire.Nonce{5}, Next: from, Seen: 2, Refused: 1, Skipped: 1, More: true})
		last := n1.expect(wire.OpRedrive)
		if m := decoded(last, wire.DecodeRedrive); m.From != from {
			t.Fatalf("sent %+v", m)
		}
		last.reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Edited: wire.Nonce{5}})
		if r, err := <-result, <-failed; err != nil || r.Moved != 3 || r.Seen != 5 || r.Refused != 1 || r.Skipped != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

func TestRedrive_Fails_TellsWhatWasMoved(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		result, failed := got(t, func() (Redriven, error) {
			return c.Admin().Redrive(t.Context(), "dead", RedriveOptions{Only: []Place{{Offset: 3}, {Offset: 4}}})
		})
		n1.expect(wire.OpRedrive).reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Ends: []wire.Place{{Offset: 9}}, More: true})
		for i := range uint64(2) {
			r := n1.expect(wire.OpRedrive)
			if m := decoded(r, wire.DecodeRedrive); !m.One || m.At != (wire.Place{Offset: 3 + i}) {
				t.Fatalf("sent %+v", m)
			}
			if i == 0 {
				r.reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, Moved: 1, Seen: 1})
				continue
			}
			r.reply(wire.RedriveReply{Status: wire.StatusNoQueue})
		}
		if r, err := <-result, <-failed; !errors.Is(err, ErrNoQueue) || r.Moved != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// TestRedrive_MissingQueue_IsNamed: the answer does not say which of the two it is.
func TestRedrive_MissingQueue_IsNamed(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		for there, missing := range map[string]string{"dead": "none", "none": "dead", "": "dead"} {
			_, failed := got(t, func() (Redriven, error) {
				return c.Admin().Redrive(t.Context(), "dead", RedriveOptions{To: "none"})
			})
			n1.expect(wire.OpRedrive).reply(wire.RedriveReply{Status: wire.StatusNoQueue})
			for asked := ""; asked != missing; {
				r := n1.expect(wire.OpQueueShow)
				asked = decoded(r, wire.DecodeQueueShow).Name
				st := wire.StatusNoQueue
				if asked == there {
					st = wire.StatusOK
				}
				r.reply(wire.QueueReply{Status: st})
			}
			if err := <-failed; !errors.Is(err, ErrNoQueue) || !strings.Contains(err.Error(), "queue "+missing+": no such queue") {
				t.Fatal(err)
			}
		}
		if _, err := c.Admin().Redrive(t.Context(), "dead", RedriveOptions{To: "dead"}); !errors.Is(err, ErrBadOptions) {
			t.Fatal(err)
		}
	})
}

// A node that is behind says so, and one that is stopped says nothing at all, although the
// kernel keeps its connections: either way the next one is asked, the leader last.
func TestBackup_NodesThatAreBehindOrStopped_AnotherIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		leader, behind, stopped := n.order[0], n.order[1], n.order[2]
		made, failed := got(t, func() (BackupSummary, error) {
			return c.Admin().Backup(t.Context(), io.Discard, BackupOptions{BeginTimeout: time.Second})
		})
		leader.expect(wire.OpCommitted).reply(wire.Committed{Index: 40})
		r := behind.expect(wire.OpBackupOpen)
		if m := decoded(r, wire.DecodeBackupOpen); m.Index != 40 {
			t.Errorf("%+v", m)
		}
		r.fail(wire.CodeBackup, "")
		stopped.expect(wire.OpBackupOpen)
		stopped.freeze()
		leader.expect(wire.OpBackupOpen).reply(wire.BackupHead{Node: leader.name})
		leader.expect(wire.OpBackupRead).reply(wire.BackupPart{Kind: wire.BackupEnd})
		if err, s := <-failed, <-made; err != nil || s.Head.Node != leader.name {
			t.Fatalf("%+v, %v", s, err)
		}
	}, "n1", "n2", "n3")
}

// Without a majority nobody knows what is confirmed, and no restore begins: within the
// time-out that is said, and since nothing has changed the outcome is not unknown.
func TestBackupAndRestore_NobodyAnswersTheFirstStep_TimeOut(t *testing.T) {
	var backup bytes.Buffer
	w, err := newBackupWriter(&backup, BackupHead{Node: "n1"})
	if err == nil {
		_, err = w.end()
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, begin := range map[string]func(ctx context.Context, a *Admin) error{
		"backup": func(ctx context.Context, a *Admin) error {
			_, err := a.Backup(ctx, io.Discard, BackupOptions{BeginTimeout: time.Second})
			return err
		},
		"restore": func(ctx context.Context, a *Admin) error {
			_, err := a.Restore(ctx, bytes.NewReader(backup.Bytes()), RestoreOptions{BeginTimeout: time.Second})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := begin(ctx, c.Admin())
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) || ctx.Err() != nil {
					t.Fatalf("%v, and the context: %v", err, ctx.Err())
				}
				if want := "no answer within 1s"; !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			})
		})
	}
}
