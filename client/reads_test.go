package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"onceq/transport/wire"
)

// reads are the calls that change nothing.
var reads = map[wire.Op]func(ctx context.Context, c *Client) error{
	wire.OpQueueShow: func(ctx context.Context, c *Client) error { _, err := c.Admin().Queue(ctx, "orders"); return err },
	wire.OpQueueList: func(ctx context.Context, c *Client) error { _, err := c.Admin().Queues(ctx); return err },
	wire.OpPeek: func(ctx context.Context, c *Client) error {
		_, err := c.Admin().Peek(ctx, "orders", PeekOptions{})
		return err
	},
	wire.OpMessageShow: func(ctx context.Context, c *Client) error {
		_, err := c.Admin().Message(ctx, "orders", Place{Offset: 1})
		return err
	},
	wire.OpConsumers: func(ctx context.Context, c *Client) error { _, err := c.Admin().Consumers(ctx, "", 0, 10); return err },
	wire.OpSessions:  func(ctx context.Context, c *Client) error { _, err := c.Admin().Sessions(ctx, 1, 10); return err },
	wire.OpMembers:   func(ctx context.Context, c *Client) error { _, err := c.Admin().Members(ctx); return err },
	wire.OpOutcome: func(ctx context.Context, c *Client) error {
		_, err := c.Outcome(ctx, InnerMsgID{Session: SessionID{Group: 1, Number: 3}, Sequence: 4})
		return err
	},
	wire.OpRedrive: func(ctx context.Context, c *Client) error {
		_, err := c.Admin().Redrive(ctx, "orders", RedriveOptions{To: "other", DryRun: true})
		return err
	},
	wire.OpCommitted: func(ctx context.Context, c *Client) error {
		_, err := c.Admin().Backup(ctx, io.Discard, BackupOptions{})
		return err
	},
}

// What only reads has no outcome that could be unknown: without an answer nothing was read,
// whatever has become of the request.
func TestRead_WithoutAnAnswer_SaysWhatWasNotReadAndWhy(t *testing.T) {
	for why, c := range map[string]struct {
		end  func(n *fakeNet, r *fakeRequest)
		says string
	}{
		"no answer":                  {func(*fakeNet, *fakeRequest) {}, ""},
		"the server cannot tell":     {func(_ *fakeNet, r *fakeRequest) { r.fail(wire.CodeOutcomeUnknown, "") }, ""},
		"the leader does not lead":   {func(_ *fakeNet, r *fakeRequest) { r.fail(wire.CodeNotLeader, "") }, "ONCEQ-1002"},
		"the connection is lost":     {func(n *fakeNet, r *fakeRequest) { n.order[0].setDown(errors.New("down")); r.conn.cut() }, "n1:7450: down"},
		"a majority of them is lost": {func(n *fakeNet, r *fakeRequest) { n.lead(2, "", false); r.conn.cut() }, "no leader"},
	} {
		for op, read := range reads {
			t.Run(fmt.Sprintf("%s, %s", op, why), func(t *testing.T) {
				bubble(t, func(t *testing.T, n *fakeNet, client *Client) {
					n1, seen := n.order[0], make(chan bool, 100)
					n1.answer(op, func(r *fakeRequest) {
						select {
						case seen <- true:
						default:
						}
						c.end(n, r)
					})
					ended := errors.New("no answer within a minute")
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, ended)
					defer cancel()
					err := read(ctx, client)
					if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ended) || errors.Is(err, ErrOutcomeUnknown) {
						t.Fatal(err)
					}
					<-seen
					for _, want := range []string{op.String() + ": nothing was read", ended.Error(), c.says} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("%v, want %q", err, want)
						}
					}
				})
			})
		}
	}
}

// A step of a redrive that moves is another thing.
func TestRedrive_StepWithoutAnAnswer_IsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, failed := got(t, func() (Redriven, error) { return c.Admin().Redrive(ctx, "orders", RedriveOptions{To: "other"}) })
		n1.expect(wire.OpRedrive).reply(wire.RedriveReply{Status: wire.StatusOK, Number: 7, More: true})
		n1.expect(wire.OpRedrive)
		if err := <-failed; !errors.Is(err, ErrOutcomeUnknown) {
			t.Error(err)
		}
	})
}
