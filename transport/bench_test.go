package transport

import (
	"context"
	"net"
	"testing"

	"onceq/transport/wire"
)

// BenchmarkCall_Pipelined keeps many requests in flight on one connection.
func BenchmarkCall_Pipelined(b *testing.B) {
	for name, size := range map[string]int{"100B": 100, "64KiB": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			h := newHandler()
			answer := make([]byte, 50)
			h.request = func(c *ServerConn, corr uint32, op wire.Op, _ []byte) { c.Reply(corr, op, answer) }
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := NewServer(h, ServerConfig{})
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c, err := Connect(context.Background(), nc, ClientConfig{})
			if err != nil {
				b.Fatal(err)
			}
			room := make(chan struct{}, 100)
			done := func(wire.Op, []byte, error) { <-room }
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				room <- struct{}{}
				if err := c.Send(wire.OpPublish, payload, done); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
			_ = s.Close()
			<-served
		})
	}
}
