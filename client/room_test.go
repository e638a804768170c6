package client

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

func TestRoom_IsGivenInOrderAndTakenBackWhenNobodyWantsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &room{messagesMax: 2, bytesMax: 100}
		never := make(chan struct{})
		var mu sync.Mutex
		var got []string
		wait := func(ctx context.Context, name string, bytes int) {
			go func() {
				if !r.take(ctx, bytes, never) {
					name += " gave up"
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, name)
			}()
			synctest.Wait()
		}
		if !r.try(60) || r.try(60) || !r.try(40) || r.try(0) {
			t.Fatalf("%+v", r)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		wait(ctx, "large", 100)
		wait(t.Context(), "small", 1)
		r.give(60)
		synctest.Wait()
		if len(got) != 0 || r.try(1) {
			t.Fatal("overtook the one that waits longer", got)
		}
		giveUp()
		synctest.Wait()
		if len(got) != 2 || got[0]+got[1] != "large gave upsmall" && got[1]+got[0] != "large gave upsmall" {
			t.Fatal(got)
		}
		wait(t.Context(), "huge", 1000) // more than there is at all: alone
		r.give(40)
		synctest.Wait()
		if len(got) != 2 {
			t.Fatal(got)
		}
		r.give(1)
		synctest.Wait()
		if len(got) != 3 || r.try(0) {
			t.Fatal(got)
		}
		r.give(1000)
		if r.messages != 0 || r.bytes != 0 {
			t.Fatalf("%+v", r)
		}
	})
}

func TestPublish_BeyondTheBounds_FailsAtOnceWhenAskedTo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c, WithMaxInFlightBytes(50), WithFailFast())
		first := p.PublishAsync(t.Context(), Message{Body: make([]byte, 40)})
		refusedWith(t, p.PublishAsync(t.Context(), Message{Body: make([]byte, 40)}), ErrWindowFull)
		n.order[0].opens(1)
		n.order[0].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, first)
		second := p.PublishAsync(t.Context(), Message{Body: make([]byte, 40)}) // there is room again
		n.order[0].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, second)
	})
}

// Who has heard of an outcome finds room for the next publish, at once.
func TestPublish_OutcomeIsTold_ItsRoomIsFree(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c, WithMaxInFlightBytes(50), WithFailFast())
		f := p.PublishAsync(t.Context(), Message{Body: make([]byte, 40)})
		free := false
		p.mu.Lock()
		f.told = func(sequenced.Stored, error) { free = p.bound.try(f.room) }
		p.mu.Unlock()
		n.order[0].opens(1)
		n.order[0].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		p.mu.Lock() // it is told with it held
		defer p.mu.Unlock()
		if !free {
			t.Error("the outcome was told, and its room was taken still")
		}
	})
}
