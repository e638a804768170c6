package cluster

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// held is a snapshot that does not come.
type held struct {
	reached, over chan struct{}
}

var errHeld = errors.New("the snapshot has ended early")

func (h *held) Read([]byte) (int, error) {
	close(h.reached)
	<-h.over
	return 0, errHeld
}

// TestStatus_WhileASnapshotIsRestored: that may take minutes, and who asks waits at the
// reader of its connection, behind which is everything else that the client wants.
func TestStatus_WhileASnapshotIsRestored(t *testing.T) {
	t.Parallel()
	const bound = 60 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	died := make(chan error, 1)
	n, err := Start(ctx, Config{Name: "n1", DataDir: t.TempDir(), Bind: "127.0.0.1:0", BootstrapExpect: 1,
		Fatal: func(err error) { died <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Kill()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !n.Status().Serving {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no leader")
		}
	}
	before := n.Status()
	h := &held{reached: make(chan struct{}), over: make(chan struct{})}
	restored := make(chan error, 1)
	go func() { restored <- n.group.Load().Restore(io.NopCloser(h)) }()
	<-h.reached
	answers := make(chan uint64, 1)
	go func() { answers <- n.Status().AppliedIndex }()
	select {
	case index := <-answers:
		if index < before.AppliedIndex {
			t.Errorf("applied %d, and before the restore %d", index, before.AppliedIndex)
		}
	case <-ctx.Done():
		t.Error("no answer while a snapshot is restored")
	}
	close(h.over)
	if err := <-restored; !errors.Is(err, errHeld) {
		t.Errorf("restore: %v", err)
	}
	if err := <-died; !errors.Is(err, errHeld) {
		t.Errorf("died of %v", err)
	}
}
