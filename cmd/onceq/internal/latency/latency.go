// Package latency collects latencies and tells percentiles.
package latency

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of a histogram in microseconds, and its precision: three
// significant digits cost 200 kB whatever is recorded.
const (
	least  = 1
	most   = int64(10 * time.Minute / time.Microsecond)
	digits = 3
)

// Histogram collects latencies. It is safe for concurrent use.
type Histogram struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// New makes an empty histogram.
func New() *Histogram { return &Histogram{h: hdrhistogram.New(least, most, digits)} }

// Record adds a latency. One beyond the range counts as its end.
func (h *Histogram) Record(d time.Duration) {
	us := min(max(int64(d/time.Microsecond), least), most)
	h.mu.Lock()
	h.h.RecordValue(us)
	h.mu.Unlock()
}

// At is the latency that q percent of what was recorded did not exceed.
func (h *Histogram) At(q float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(h.h.ValueAtQuantile(q)) * time.Microsecond
}

// Millis is At in milliseconds, as rows have it.
func (h *Histogram) Millis(q float64) float64 { return float64(h.At(q)) / float64(time.Millisecond) }

// Count is how many were recorded.
func (h *Histogram) Count() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.h.TotalCount()
}
