package inbox

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Memory returns a store that remembers the newest n messages for ttl, 0 for as
// long as there is room. It forgets everything with the process. It panics when n
// is less than 1.
func Memory(n int, ttl time.Duration) Store {
	if n < 1 {
		panic(fmt.Sprintf("inbox: a memory of %d messages: at least 1 is accepted", n))
	}
	return &memory{max: n, ttl: ttl, known: map[string]*list.Element{}, order: list.New()}
}

type memory struct {
	max int
	ttl time.Duration

	mu    sync.Mutex // guards what follows
	known map[string]*list.Element
	order *list.List // of note, oldest first; the same keys as in known
}

type note struct {
	key string
	at  time.Time
}

// Do implements Store.
func (s *memory) Do(ctx context.Context, key string, handle func() error) (seen bool, err error) {
	if err := taken.take(ctx, s, key); err != nil {
		return false, err
	}
	defer taken.end(s, key)
	if s.seen(key) {
		return true, nil
	}
	if err := handle(); err != nil {
		return false, err
	}
	s.remember(key)
	return false, nil
}

func (s *memory) seen(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[key]
	return ok
}

// remember takes a key that is not known: it is the caller's turn.
func (s *memory) remember(key string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = s.order.PushBack(note{key, now})
	for e := s.order.Front(); e != nil; e = s.order.Front() {
		n := e.Value.(note)
		if s.order.Len() <= s.max && (s.ttl <= 0 || now.Sub(n.at) < s.ttl) {
			return
		}
		s.order.Remove(e)
		delete(s.known, n.key)
	}
}
