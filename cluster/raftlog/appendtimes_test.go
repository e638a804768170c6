package raftlog

import (
	"testing"
	"time"
)

func TestAppendTimes_OfTheNewest(t *testing.T) {
	t.Parallel()
	var a appendTimes
	want := func(p50, p99 time.Duration) {
		t.Helper()
		if m, s := a.at(); m != p50 || s != p99 {
			t.Errorf("%d and %d, want %d and %d", m, s, p50, p99)
		}
	}
	want(0, 0)
	a.note(7)
	want(7, 7)
	for i := range 99 {
		a.note(time.Duration(1000 + i))
	}
	want(1048, 1097) // 7, 1000 to 1098
	for range appendTimesKept {
		a.note(3)
	}
	want(3, 3) // all others are gone
	for range appendTimesKept / 2 {
		a.note(5)
	}
	want(3, 5)
	a.note(5)
	want(5, 5)
}

// TestStore_AppendTimes_AreOfAppends: each that was made counts, reads do not.
func TestStore_AppendTimes_AreOfAppends(t *testing.T) {
	t.Parallel()
	s, _ := openCounting(t)
	if p50, p99 := s.AppendTimes(); p50 != 0 || p99 != 0 {
		t.Errorf("%v and %v before anything was appended", p50, p99)
	}
	mustStore(t, s, owns(1, 3, 1)...)
	mustStore(t, s, owns(4, 4, 1)...)
	if p50, p99 := s.AppendTimes(); p50 <= 0 || p99 < p50 {
		t.Errorf("%v and %v", p50, p99)
	}
	if n := len(s.appends.times); n != 2 {
		t.Errorf("%d times of 2 appends", n)
	}
}
