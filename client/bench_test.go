package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// benchServer is the least that a server can do, over loopback: what is measured
// is the client.
type benchServer struct {
	l        net.Listener
	messages int
	body     []byte
	wg       sync.WaitGroup
}

func newBenchServer(b *testing.B, bodyBytes int) *benchServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &benchServer{l: l, messages: b.N, body: make([]byte, bodyBytes)}
	s.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(nc) })
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		s.wg.Wait()
	})
	return s
}

func (s *benchServer) serve(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 64<<10)
	if _, err := io.CopyN(io.Discard, br, 4); err != nil {
		return
	}
	fr := wire.NewFrameReader(br, wire.FrameBytesMax)
	var w pack.Writer
	send := func(op wire.Op, reply bool, corr uint32, m appender) {
		start := wire.BeginFrame(&w)
		m.Append(&w)
		wire.EndFrame(&w, start, op, reply, corr)
	}
	var attached wire.Attach
	given := 0
	give := func(n int) {
		m := wire.Deliver{Consumer: attached.Consumer, N: attached.N}
		var body pack.Writer
		wire.Message{Body: s.body}.Append(&body)
		for ; n > 0 && given < s.messages; n-- {
			given++
			m.Deliveries = append(m.Deliveries, wire.Delivery{Number: uint64(given), Queue: 7, Offset: uint64(given), Attempt: 1, Remaining: time.Hour, Message: body.Bytes()})
		}
		if len(m.Deliveries) > 0 {
			send(wire.OpDeliver, false, 0, m)
		}
	}
	for {
		f, err := fr.Next()
		if err != nil {
			return
		}
		switch f.Op {
		case wire.OpHello:
			send(f.Op, true, f.Corr, wire.Welcome{
				Version: wire.Version, Cluster: "c", Incarnation: 1, Node: "n1", PublishWindow: 8 << 20, FrameBytesMax: 8 << 20, BodyBytesMax: 1 << 20,
				Topology: wire.Topology{Group: 1, Term: 1, Leader: "n1", Nodes: []wire.NodeAddress{{Name: "n1", Address: s.l.Addr().String()}}},
			})
		case wire.OpOpenSession:
			send(f.Op, true, f.Corr, wire.SessionOpened{Status: wire.StatusOK, Session: wire.SessionID{Incarnation: 1, Group: 1, Number: 1}, Epoch: 1, Floor: 1, Next: 1})
		case wire.OpPublish:
			m, _ := wire.DecodePublishFrame(f.Payload)
			reply := wire.PublishReply{Results: make([]wire.PublishResult, len(m.Publishes))}
			for i, p := range m.Publishes {
				reply.Results[i] = wire.PublishResult{Sequence: p.Sequence, Status: wire.StatusOK, Queue: 7, Offset: p.Sequence, Count: 1}
			}
			send(f.Op, true, f.Corr, reply)
		case wire.OpAttach:
			attached, _ = wire.DecodeAttach(f.Payload)
			send(f.Op, true, f.Corr, wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: time.Hour, Next: 1})
			give(int(attached.Credit))
		case wire.OpSettle:
			m, _ := wire.DecodeSettle(f.Payload)
			reply := wire.SettleReply{Status: wire.StatusOK}
			n := 0
			for _, it := range m.Items {
				n += int(it.To - it.From + 1)
				reply.Results = append(reply.Results, wire.DeliveryState{From: it.From, To: it.To, State: wire.LeaseAcked})
			}
			send(f.Op, true, f.Corr, reply)
			give(n)
		case wire.OpCloseSession, wire.OpLeave:
			send(f.Op, true, f.Corr, wire.StatusReply{Status: wire.StatusOK})
		default:
			send(f.Op, true, f.Corr, wire.StatusReply{})
		}
		if br.Buffered() == 0 {
			if _, err := nc.Write(w.Bytes()); err != nil {
				return
			}
			w.Reset()
		}
	}
}

func benchClient(b *testing.B, s *benchServer) *Client {
	c, err := Dial(b.Context(), s.l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkPublishAsync(b *testing.B) {
	s := newBenchServer(b, 0)
	c := benchClient(b, s)
	p, err := c.NewProducer("orders")
	if err != nil {
		b.Fatal(err)
	}
	m := Message{Body: make([]byte, 100)}
	ctx := b.Context()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.PublishAsync(ctx, m)
	}
	if err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if st := p.Stats(); st.Confirmed != uint64(b.N) {
		b.Fatalf("%+v", st)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	_ = c.Close()
}

func BenchmarkPublish(b *testing.B) {
	s := newBenchServer(b, 0)
	c := benchClient(b, s)
	p, err := c.NewProducer("orders")
	if err != nil {
		b.Fatal(err)
	}
	m := Message{Body: make([]byte, 100)}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := p.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_ = c.Close()
}

func BenchmarkConsume(b *testing.B) {
	s := newBenchServer(b, 100)
	c := benchClient(b, s)
	ctx, stop := context.WithCancel(b.Context())
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	err := c.Consume(ctx, "orders", func(ctx context.Context, d *Delivery) error {
		if n++; n == s.messages {
			stop()
		}
		return nil
	}, WithPrefetch(4096))
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	stop()
	_ = c.Close()
}
