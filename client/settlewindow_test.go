package client

import (
	"context"
	"fmt"
	"testing"

	"onceq/transport/wire"
)

// settles takes the settles that have come and have no answer.
func (n *fakeNode) settles() (frames []*fakeRequest, settled int) {
	for range n.waiting() {
		f := n.expect(wire.OpSettle)
		frames = append(frames, f)
		for _, it := range f.settle().Items {
			settled += int(it.To - it.From + 1)
		}
	}
	return frames, settled
}

// TestSettle_TheWholeCredit_LeavesWithoutAnAnswer: an answer takes as long as a publish
// does. A consumer that waited for one with a part of its credit would be left behind by
// producers with the same window.
func TestSettle_TheWholeCredit_LeavesWithoutAnAnswer(t *testing.T) {
	for _, credit := range []int{1, 2, 7, 64, 65, 100, 512, 1024, 4096, 8192} {
		for _, manual := range []bool{false, true} {
			t.Run(fmt.Sprintf("credit %d, manual %v", credit, manual), func(t *testing.T) {
				bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
					n1 := n.order[0]
					o := []ConsumeOption{WithPrefetch(credit)}
					if manual {
						o = append(o, WithManualSettle())
					}
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan error, 1)
					go func() {
						ended <- c.Consume(ctx, "orders", func(ctx context.Context, d *Delivery) error {
							if manual {
								go d.Ack(context.Background())
							}
							return nil
						}, o...)
					}()
					r := n1.expect(wire.OpAttach)
					attached(r, 1)
					r.deliver(1, make([]string, credit)...)
					frames, settled := n1.settles()
					most := 0 // what the handler is at when all others are settled may find no frame left
					if manual {
						most = 1
					}
					if settled < credit-most || len(frames) > settleFramesMax {
						t.Errorf("%d of %d are settled, in %d frames", settled, credit, len(frames))
					}
					n1.answer(wire.OpSettle, func(f *fakeRequest) { f.allSettled() })
					for _, f := range frames {
						f.allSettled()
					}
					cancel()
					l := n1.expect(wire.OpLeave)
					l.reply(wire.StatusReply{Status: wire.StatusOK})
					if err := <-ended; err != nil {
						t.Fatal(err)
					}
				})
			})
		}
	}
}

// TestSettle_AHandlerHangs_TheRestOfTheCreditLeavesWithoutAnAnswer: one slow message
// is no reason to hold the others back.
func TestSettle_AHandlerHangs_TheRestOfTheCreditLeavesWithoutAnAnswer(t *testing.T) {
	for _, credit := range []int{7, 100, 1024, 4096} {
		t.Run(fmt.Sprint("credit ", credit), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				ctx, cancel := context.WithCancel(t.Context())
				ended, hang := make(chan error, 1), make(chan struct{})
				go func() {
					ended <- c.Consume(ctx, "orders", func(ctx context.Context, d *Delivery) error {
						if string(d.Body()) == "slow" {
							<-hang
						}
						return nil
					}, WithPrefetch(credit), WithConcurrency(4))
				}()
				r := n1.expect(wire.OpAttach)
				attached(r, 1)
				bodies := make([]string, credit)
				bodies[0] = "slow"
				r.deliver(1, bodies...)
				frames, settled := n1.settles()
				if settled < credit-4 { // as many as there are handlers may find no frame left
					t.Errorf("%d of %d are settled", settled, credit)
				}
				n1.answer(wire.OpSettle, func(f *fakeRequest) { f.allSettled() })
				for _, f := range frames {
					f.allSettled()
				}
				close(hang)
				cancel()
				n1.expect(wire.OpLeave).reply(wire.StatusReply{Status: wire.StatusOK})
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
