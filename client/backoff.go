package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff grows a delay from base to most, with jitter, so that the clients of a
// cluster that comes back do not all knock at once.
type backoff struct {
	base, most time.Duration
	attempt    int
}

func (b *backoff) reset() { b.attempt = 0 }

func (b *backoff) next() time.Duration {
	b.attempt++
	return jittered(b.base, b.most, b.attempt)
}

// jittered is between half and all of base doubled attempt-1 times, at most most.
func jittered(base, most time.Duration, attempt int) time.Duration {
	d := most
	if attempt < 1 {
		attempt = 1
	}
	if attempt <= 32 && base<<(attempt-1) < most && base<<(attempt-1) > 0 {
		d = base << (attempt - 1)
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits for d; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
