package wire

import (
	"bytes"
	"fmt"
	"testing"

	"onceq/transport/wire/pack"
)

func BenchmarkPublishFrame(b *testing.B) {
	const n = 100
	frame := PublishFrame{Incarnation: 1 << 60, Group: 1, Session: 42, Epoch: 1, Floor: 1000, Queue: "orders"}
	for i := range n {
		ms := []Message{{Body: bytes.Repeat([]byte("b"), 100), BizID: "order-1234567"}}
		frame.Publishes = append(frame.Publishes, Publish{Sequence: uint64(1000 + i), Checksum: PublishChecksum("orders", ms), Messages: ms})
	}
	var w pack.Writer
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.Reset()
			frame.Append(&w)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodePublishFrame(w.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
	})
	b.Run("checksum", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := range frame.Publishes {
				_ = PublishChecksum(frame.Queue, frame.Publishes[i].Messages)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
	})
}

// BenchmarkFrameReader reads frames of which everything has arrived.
func BenchmarkFrameReader(b *testing.B) {
	for _, kib := range []int{1, 32, 64, 128, 512, 1024} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			frame := AppendFrame(nil, OpPublish, false, 1, make([]byte, kib<<10))
			r := bytes.NewReader(frame)
			frames := NewFrameReader(r, FrameBytesMax)
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(frame)
				if _, err := frames.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
