package outbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/onceqtest"
)

// bound is how long anything that must happen may take.
const bound = time.Minute

// cluster is one with a queue called orders.
func cluster(t *testing.T, nodes int, settings client.QueueSettings) (*onceqtest.Cluster, *client.Client) {
	t.Helper()
	cl := onceqtest.Start(t, nodes)
	c := cl.Client()
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", settings); err != nil {
		t.Fatal(err)
	}
	return cl, c
}

func path(t *testing.T) string { return filepath.Join(t.TempDir(), "orders.outbox") }

// open opens an outbox that ends with the test.
func open(t *testing.T, path string, opts ...Option) *Outbox {
	t.Helper()
	b, err := Open(path, "orders", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, b) })
	return b
}

func shut(t *testing.T, b *Outbox) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}

func publish(t *testing.T, b *Outbox, ids ...string) (numbers []Number) {
	t.Helper()
	for _, id := range ids {
		n, err := b.Publish(bounded(t), client.Message{BizID: id, Body: []byte("body of " + id)})
		if err != nil {
			t.Fatalf("publish %s: %v", id, err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func flush(t *testing.T, b *Outbox) {
	t.Helper()
	if err := b.Flush(bounded(t)); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// stored are the biz-ids in the queue, those of each ordering key in order. The
// queue is not changed.
func stored(t *testing.T, c *client.Client) (all []string) {
	t.Helper()
	for _, state := range []client.MessageState{client.Ready, client.Blocked} {
		at := client.PeekOptions{State: state, Bodies: true}
		for more := true; more; {
			p, err := c.Admin().Peek(bounded(t), "orders", at)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range p.Messages {
				all = append(all, m.Content.BizID)
			}
			at.From, more = p.Next, p.More
		}
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func ids(prefix string, from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprintf("%s%d", prefix, i))
	}
	return all
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}

func heldError(t *testing.T, err error, reason Reason) *HeldError {
	t.Helper()
	h := (*HeldError)(nil)
	if !errors.As(err, &h) || h.Reason != reason {
		t.Fatalf("error %v, want one that says held: %v", err, reason)
	}
	return h
}

// gate is a dialer that fails until open is closed.
func gate(open chan struct{}) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-open:
			return (&net.Dialer{}).DialContext(ctx, network, address)
		default:
			return nil, errors.New("the test has cut the network")
		}
	}
}
