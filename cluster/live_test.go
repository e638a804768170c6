package cluster_test

import (
	"errors"
	"testing"

	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

func dial(t *testing.T, n *clustertest.Node) *clustertest.Raw {
	t.Helper()
	r, err := clustertest.DialRaw(n.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func must[A any](a A, err error) func(t *testing.T) A {
	return func(t *testing.T) A {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func TestOneNode_PublishConsumeAck(t *testing.T) {
	c := clustertest.New(t, 1)
	r := dial(t, c.WaitLeader())
	q := must(r.CreateQueue("orders", wire.QueueSettings{}))(t)
	if q.Status != wire.StatusOK {
		t.Fatalf("create: %v", q.Status)
	}
	s := must(r.OpenSession())(t)
	consumer := clustertest.NewConsumer()
	a := must(r.Attach(consumer, 1, "orders", 10, 1))(t)
	if a.Status != wire.StatusOK {
		t.Fatalf("attach: %v", a.Status)
	}
	p := must(r.Publish(s, 1, "orders", clustertest.Publication("orders", 1, "hello")))(t)
	if len(p.Results) != 1 || p.Results[0].Status != wire.StatusOK || p.Results[0].Duplicate {
		t.Fatalf("publish: %+v", p)
	}
	again := must(r.Publish(s, 1, "orders", clustertest.Publication("orders", 1, "hello")))(t)
	if len(again.Results) != 1 || again.Results[0].Status != wire.StatusOK || !again.Results[0].Duplicate || again.Results[0].Offset != p.Results[0].Offset {
		t.Fatalf("the same again: %+v", again)
	}
	clustertest.Eventually(t, func() string {
		if len(r.Deliveries(consumer, 1)) == 0 {
			return "no delivery"
		}
		return ""
	})
	ds := r.Deliveries(consumer, 1)
	if len(ds) != 1 || ds[0].Number != 1 || ds[0].Attempt != 1 || ds[0].Remaining <= 0 {
		t.Fatalf("deliveries: %+v", ds)
	}
	m := must(wire.DecodeMessage(ds[0].Message))(t)
	if string(m.Body) != "hello" {
		t.Fatalf("body %q", m.Body)
	}
	ack := must(r.Ack(consumer, 1, 1, 1))(t)
	if ack.Status != wire.StatusOK || len(ack.Results) != 1 || ack.Results[0].State != wire.LeaseAcked {
		t.Fatalf("ack: %+v", ack)
	}
	info := must(r.Queue("orders"))(t).Info
	if info.Counts.Stored != 1 || info.Counts.Acked != 1 || info.Counts.Ready != 0 || info.Counts.DuplicatesRefused != 1 {
		t.Fatalf("counts: %+v", info.Counts)
	}
	c.DigestsAgree()
}

func asWireError(err error) *wire.Error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
