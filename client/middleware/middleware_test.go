package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
	"onceq/client/middleware"
	"onceq/client/onceqtest"
)

func TestMiddleware_TogetherInConsume(t *testing.T) {
	t.Parallel()
	c := onceqtest.Start(t, 1).Client()
	if _, err := c.Admin().CreateQueue(t.Context(), "dead", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", client.QueueSettings{DeadLetter: "dead"}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"bad", "good"} {
		if _, err := p.Publish(t.Context(), client.Message{Body: []byte(body), BizID: "order-" + body}); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	give := func(d *client.Delivery, panicked any, stack []byte) error {
		if len(stack) == 0 {
			t.Error("no stack")
		}
		return client.DeadLetter(fmt.Errorf("%s: %v", d.BizID(), panicked))
	}
	err = c.Consume(ctx, "orders", func(ctx context.Context, d *client.Delivery) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the handler's time is not bounded")
		}
		if string(d.Body()) == "bad" {
			panic("no customer")
		}
		stop()
		return nil
	}, client.WithMiddleware(
		middleware.Log(slog.New(slog.NewTextHandler(&log, nil))), middleware.Recover(give), middleware.Timeout(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	for d, err := range c.Messages(t.Context(), "dead") {
		if err != nil {
			t.Fatal(err)
		}
		info, ok := d.DeadLetter()
		if !ok || !strings.Contains(info.LastError, "order-bad: no customer") {
			t.Errorf("%v, %+v", ok, info)
		}
		break
	}
	for _, want := range []string{
		`level=WARN msg="message not handled" message=orders/0 biz_id=order-bad attempt=1`, "no customer",
		`level=INFO msg="message handled" message=orders/1 biz_id=order-good attempt=1 duration=`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

func TestTimeout_EndsTheContextWithItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := middleware.Timeout(time.Second)(func(ctx context.Context, _ *client.Delivery) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		began := time.Now()
		if err := h(t.Context(), nil); !errors.Is(err, middleware.ErrTimeout) {
			t.Error(err)
		}
		if d := time.Since(began); d != time.Second { // virtual time
			t.Error(d)
		}
	})
}

func TestRecover_WithoutADecision_GivesBackWithThePanicsText(t *testing.T) {
	t.Parallel()
	h := middleware.Recover(nil)(func(context.Context, *client.Delivery) error { panic("oh") })
	if err := h(t.Context(), nil); err == nil || err.Error() != "handler panicked: oh" {
		t.Error(err)
	}
	fine := middleware.Recover(nil)(func(context.Context, *client.Delivery) error { return nil })
	if err := fine(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
