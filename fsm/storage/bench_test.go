package storage

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkStore_KeepsUp is a body's life in a queue that keeps up: put, read
// once, deleted, with a thousand others in between.
func BenchmarkStore_KeepsUp(b *testing.B) {
	for _, size := range []int{64, 1100} {
		message := make([]byte, size)
		run := func(b *testing.B, s store) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for i := range b.N {
				o := uint64(i)
				s.Put(1, 0, o, 1, message)
				if o >= 1000 {
					if _, _, ok := s.Get(1, 0, o-1000); !ok {
						b.Fatal("gone")
					}
					s.Delete(1, 0, o-1000)
				}
			}
		}
		b.Run(fmt.Sprintf("memory/%d", size), func(b *testing.B) { run(b, NewMemory()) })
		b.Run(fmt.Sprintf("pebble/%d", size), func(b *testing.B) {
			run(b, openTest(b, vfs.Default, filepath.Join(b.TempDir(), "live"), YoungBytesDefault))
		})
	}
}
