package raftlog

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// BenchmarkStoreLogs is what a node does with an entry before it confirms anything: a
// small one, and one of a batch at full speed.
func BenchmarkStoreLogs(b *testing.B) {
	for _, kind := range []string{KindWAL, KindBolt} {
		for _, bytes := range []int{4 << 10, 512 << 10} {
			b.Run(fmt.Sprintf("%s/%d KiB", kind, bytes>>10), func(b *testing.B) {
				s, err := Open(Options{Dir: filepath.Join(b.TempDir(), "log"), Kind: kind, Logger: quiet, Fatal: func(err error) { b.Error(err) }})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				data := make([]byte, bytes)
				for i := range data {
					data[i] = byte(i * i >> 8)
				}
				index, first := uint64(0), uint64(1)
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				for b.Loop() {
					index++
					if err := s.StoreLogs([]*raft.Log{{Index: index, Term: 1, Data: data}}); err != nil {
						b.Fatal(err)
					}
					if index%64 == 0 { // the log does not grow without end
						if err := s.DeleteRange(first, index-32); err != nil {
							b.Fatal(err)
						}
						first = index - 31
					}
				}
			})
		}
	}
}
