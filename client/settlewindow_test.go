package client

import (
	"context"
	"fmt"
	"testing"

	"onceq/transport/wire"
)

// settledUnanswered delivers bodies to a consumer with a credit of as many, and tells how
// many it has settled, in how many frames, before any settle is answered. Then all are,
// goOn is called, and the consumer ends.
func settledUnanswered(t *testing.T, n1 *fakeNode, c *Client, bodies []string, goOn func(), h Handler, opts ...ConsumeOption) (settled, frames int) {
	t.Helper()
	e := newEater(t)
	e.consume(c, h, append(opts, WithPrefetch(len(bodies)))...)
	r := n1.expect(wire.OpAttach)
	attached(r, 1)
	r.deliver(1, bodies...)
	var unanswered []*fakeRequest
	for range n1.waiting() {
		f := n1.expect(wire.OpSettle)
		unanswered = append(unanswered, f)
		for _, it := range f.settle().Items {
			settled += int(it.To - it.From + 1)
		}
	}
	n1.answer(wire.OpSettle, (*fakeRequest).allSettled)
	for _, f := range unanswered {
		f.allSettled()
	}
	goOn()
	e.cancel()
	e.left(n1)
	return settled, len(unanswered)
}

// TestSettle_TheWholeCredit_LeavesWithoutAnAnswer: an answer takes as long as a publish
// does. A consumer that waited for one with a part of its credit would be left behind by
// producers with the same window. (A rest of less than a quarter waits.)
func TestSettle_TheWholeCredit_LeavesWithoutAnAnswer(t *testing.T) {
	for credit, rest := range map[int]int{1: 0, 2: 0, 7: 0, 64: 0, 65: 0, 85: 85 / 4, 100: 0, 130: 1, 512: 0, 1024: 0, 4096: 0, 8192: 0} {
		for _, manual := range []bool{false, true} {
			t.Run(fmt.Sprintf("credit %d, manual %v", credit, manual), func(t *testing.T) {
				bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
					h, opts, most := Handler(func(context.Context, *Delivery) error { return nil }), []ConsumeOption(nil), 0
					if manual {
						h, opts = func(_ context.Context, d *Delivery) error {
							go d.Ack(context.Background())
							return nil
						}, []ConsumeOption{WithManualSettle()}
						most = 1 // what the handler is at when all others are settled may find no frame left
					}
					settled, frames := settledUnanswered(t, n.order[0], c, make([]string, credit), func() {}, h, opts...)
					if settled < credit-rest-most || frames > settleFramesMax {
						t.Errorf("%d of %d are settled, in %d frames", settled, credit, frames)
					}
				})
			})
		}
	}
}

// TestSettle_HandlersWaitForTheirAnswers_TheCreditLeavesWithoutOne: who has said what is
// to become of its message is no longer at it.
func TestSettle_HandlersWaitForTheirAnswers_TheCreditLeavesWithoutOne(t *testing.T) {
	for _, credit := range []int{2, 7, 16, 48, 64, 100, 512} {
		t.Run(fmt.Sprint("credit ", credit), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				settled, frames := settledUnanswered(t, n.order[0], c, make([]string, credit), func() {}, func(ctx context.Context, d *Delivery) error {
					return d.Ack(ctx)
				}, WithManualSettle(), WithConcurrency(credit))
				// Who was still at his message when the last frame left waits for an answer.
				if settled < credit-credit/2 || frames > settleFramesMax {
					t.Errorf("%d of %d are settled, in %d frames", settled, credit, frames)
				}
			})
		})
	}
}

// TestSettle_AHandlerHangs_TheRestOfTheCreditLeavesWithoutAnAnswer: one slow message
// is no reason to hold the others back.
func TestSettle_AHandlerHangs_TheRestOfTheCreditLeavesWithoutAnAnswer(t *testing.T) {
	for _, credit := range []int{7, 100, 1024, 4096} {
		t.Run(fmt.Sprint("credit ", credit), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				hang := make(chan struct{})
				bodies := make([]string, credit)
				bodies[0] = "slow"
				const handlers = 4
				settled, _ := settledUnanswered(t, n.order[0], c, bodies, func() { close(hang) }, func(_ context.Context, d *Delivery) error {
					if string(d.Body()) == "slow" {
						<-hang
					}
					return nil
				}, WithConcurrency(handlers))
				if settled < credit-handlers { // what they are at may find no frame left
					t.Errorf("%d of %d are settled", settled, credit)
				}
			})
		})
	}
}
