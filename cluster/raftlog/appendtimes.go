package raftlog

import (
	"slices"
	"sync"
	"time"
)

// appendTimesKept is of how many appends the times are kept.
const appendTimesKept = 1024

// appendTimes are how long the newest appends took, what made them durable included.
type appendTimes struct {
	mu    sync.Mutex // guards below
	times []time.Duration
	next  int // where the oldest is, once all places are taken
}

func (a *appendTimes) note(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.times) < appendTimesKept {
		a.times = append(a.times, d)
		return
	}
	a.times[a.next] = d
	a.next = (a.next + 1) % appendTimesKept
}

// at returns what half of them, and 99 % of them, did not exceed: 0 when there are none.
func (a *appendTimes) at() (p50, p99 time.Duration) {
	a.mu.Lock()
	sorted := slices.Clone(a.times)
	a.mu.Unlock()
	if len(sorted) == 0 {
		return 0, 0
	}
	slices.Sort(sorted)
	at := func(percent int) time.Duration { return sorted[(len(sorted)*percent+99)/100-1] }
	return at(50), at(99)
}

// AppendTimes is how long the newest appends took, in the median and in 99 of a hundred: a disk that is slow shows here.
func (s *Store) AppendTimes() (p50, p99 time.Duration) { return s.appends.at() }
