package exit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"onceq/client"
	"onceq/transport/wire"
)

func TestOf_EachErrorHasItsCode(t *testing.T) {
	_, inUse := func() (net.Listener, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return net.Listen("tcp", l.Addr().String())
	}()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, OK},
		{errors.New("anything"), Failure},
		{Errorf(Usage, "flag"), Usage},
		{client.ErrNoQueue, NotFound},
		{client.ErrNoNode, NotFound},
		{client.ErrNotStored, NotFound},
		{client.ErrConflict, Conflict},
		{client.ErrFenced, Conflict},
		{client.ErrMembership, Conflict},
		{inUse, Conflict},
		{client.ErrUnreachable, Unavailable},
		{client.ErrNoLeader, Unavailable},
		{client.ErrQueueFull, Unavailable},
		{context.DeadlineExceeded, Unavailable},
		{client.ErrOutcomeUnknown, Unknown},
		{client.ErrSessionExpired, Unknown},
		{&client.OutcomeUnknownError{Cause: context.DeadlineExceeded}, Unknown},
		{client.ErrBadName, Usage},
		{client.ErrBadSettings, Usage},
		{client.ErrTooLarge, Failure},
		{context.Canceled, Interrupted},
		{Errorf(CheckFailed, "books"), CheckFailed},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%v has exit code %d, want %d", c.err, got, c.want)
		}
		if c.err != nil {
			if got := Of(fmt.Errorf("line 7: %w", c.err)); got != c.want {
				t.Errorf("%v, wrapped, has exit code %d, want %d", c.err, got, c.want)
			}
			if got := Of(Hint(c.err, "do this")); got != c.want {
				t.Errorf("%v, with a hint, has exit code %d, want %d", c.err, got, c.want)
			}
		}
	}
}

// Unavailable promises that nothing happened and the same call may succeed
// later: it must not be given to a code that is not retriable, nor the reverse
// to one that leaves the outcome open.
func TestOfCode_UnavailableMeansRetriable(t *testing.T) {
	for _, c := range wire.Codes() {
		e, ok := wire.Explain(c)
		if !ok {
			t.Fatalf("no explanation of %d", c)
		}
		if OfCode(c) == Unavailable && !e.Retriable {
			t.Errorf("ONCEQ-%d (%s) has exit code 6, and is not retriable", c, e.Name)
		}
		if OfCode(c) == OK {
			t.Errorf("ONCEQ-%d has exit code 0", c)
		}
	}
}
