package client

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestCauseOf_TellsTheCauseAndHowTheContextEnded(t *testing.T) {
	t.Parallel()
	own := errors.New("no answer within 3s")
	late, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, own)
	defer cancel()
	<-late.Done()
	ended, end := context.WithCancelCause(t.Context())
	end(own)
	plain, stop := context.WithCancel(t.Context())
	stop()
	for _, c := range []struct {
		name string
		ctx  context.Context
		text string
		is   []error
	}{
		{"a timeout with a cause", late, own.Error(), []error{own, context.DeadlineExceeded}},
		{"a cancel with a cause", ended, own.Error(), []error{own, context.Canceled}},
		{"a cancel", plain, context.Canceled.Error(), []error{context.Canceled}},
	} {
		err := error(&endedError{what: "publish", cause: causeOf(c.ctx)})
		if want := "publish: nothing was sent: " + c.text; err.Error() != want {
			t.Errorf("%s: %q, want %q", c.name, err, want)
		}
		for _, want := range c.is {
			if !errors.Is(err, want) {
				t.Errorf("%s: it is not %v", c.name, want)
			}
		}
	}
	if errors.Is(causeOf(late), context.Canceled) {
		t.Error("a timeout is called a cancel")
	}
}
