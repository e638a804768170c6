package latency

import (
	"testing"
	"time"
)

func TestHistogram_Percentiles(t *testing.T) {
	h := New()
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	h.Record(time.Hour) // beyond the range
	h.Record(-1)        // a clock that went back
	if h.Count() != 1002 {
		t.Fatal(h.Count())
	}
	for q, want := range map[float64]time.Duration{50: 500 * time.Millisecond, 99: 990 * time.Millisecond, 100: 10 * time.Minute} {
		if got := h.At(q); got < want*99/100 || got > want*101/100 {
			t.Errorf("p%g is %s, want about %s", q, got, want)
		}
	}
}
