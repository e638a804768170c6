package member

import (
	"log/slog"
	"sync"
	"time"
)

// rateLog writes at most one warning in each period and counts the rest, so
// that whoever knocks at the port in a loop can not fill the disk.
type rateLog struct {
	log   *slog.Logger
	every time.Duration

	mu      sync.Mutex
	next    time.Time
	dropped int
}

func (l *rateLog) warn(msg string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	if now.Before(l.next) {
		l.dropped++
		l.mu.Unlock()
		return
	}
	dropped := l.dropped
	l.next, l.dropped = now.Add(l.every), 0
	l.mu.Unlock()
	if dropped > 0 {
		args = append(args, "more_like_this", dropped)
	}
	l.log.Warn(msg, args...)
}
