package cluster

import (
	"testing"

	"onceq/fsm"
	"onceq/fsm/storage"
)

// TestLookUps_EachHasTheLockToItself: what waits to be applied goes between two look-ups
// that one confirmation serves, not after all of them.
func TestLookUps_EachHasTheLockToItself(t *testing.T) {
	t.Parallel()
	g := &group{machine: fsm.New(fsm.Config{Group: groupNumber}, storage.NewMemory())}
	r := newReader(g)
	applied := false
	first := read{do: func() {
		go func() {
			g.mu.Lock()
			applied = true
			g.mu.Unlock()
		}()
		for g.mu.TryRLock() { // until the writer waits
			g.mu.RUnlock()
		}
	}}
	second := read{do: func() {
		if !applied {
			t.Error("two look-ups went before what waited to be applied")
		}
	}}
	r.answer([]read{first, second})
}
