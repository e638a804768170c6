package transport

import (
	"io"
	"sync/atomic"
	"time"
)

// silence measures how long a peer has sent nothing while we were waiting for
// it. Time that the reader spends elsewhere does not count against the peer.
type silence struct {
	r     io.Reader
	start time.Time
	// since is when the wait that is going on began, as nanoseconds after
	// start plus one; 0 while nobody waits.
	since atomic.Int64
	pace  pace
}

func newSilence(r io.Reader) *silence {
	now := time.Now()
	return &silence{r: r, start: now, pace: pace{start: now}}
}

func (s *silence) Read(p []byte) (int, error) {
	s.since.Store(int64(time.Since(s.start)) + 1)
	n, err := s.r.Read(p)
	s.since.Store(0)
	s.pace.moves(n)
	return n, err
}

// length is how long the peer has been silent.
func (s *silence) length() time.Duration {
	since := s.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(s.start) - time.Duration(since-1)
}
