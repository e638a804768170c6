package inbox

import (
	"context"
	"fmt"
	"sync"
)

// turns lets one at a time handle a message; the others wait for it.
type turns struct {
	mu   sync.Mutex
	busy map[turn]chan struct{} // closed when the turn ends
}

// turn is one message at one store. owner is what two users of the same store
// share, such as the database's handle.
type turn struct {
	owner any
	key   string
}

// taken is shared by all inboxes of the process, so that two that were made for
// the same store wait for each other. It holds as many entries as handlers run.
var taken = turns{busy: map[turn]chan struct{}{}}

// take waits for the turn, until ctx ends.
func (t *turns) take(ctx context.Context, owner any, key string) error {
	for {
		t.mu.Lock()
		first, busy := t.busy[turn{owner, key}]
		if !busy {
			t.busy[turn{owner, key}] = make(chan struct{})
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return fmt.Errorf("inbox: another delivery of the same message is being handled: %w", context.Cause(ctx))
		}
	}
}

// end ends the turn.
func (t *turns) end(owner any, key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.busy[turn{owner, key}])
	delete(t.busy, turn{owner, key})
}
