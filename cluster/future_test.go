package cluster

import (
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

type discardFSM struct{}

func (discardFSM) Apply(*raft.Log) any                 { return nil }
func (discardFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errEnding }
func (discardFSM) Restore(r io.ReadCloser) error       { return r.Close() }

func newBareRaft(t *testing.T) *raft.Raft {
	t.Helper()
	_, trans := raft.NewInmemTransport("n1")
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "n1", hclog.NewNullLogger()
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(c, discardFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Shutdown().Error() })
	return r
}

// TestBound_EveryFutureOfRaftCanBeBound fails when the library changes what
// bound relies on.
func TestBound_EveryFutureOfRaftCanBeBound(t *testing.T) {
	r := newBareRaft(t)
	ended := make(chan struct{})
	for name, f := range map[string]raft.Future{
		"Apply":        r.Apply([]byte("x"), 0),
		"Barrier":      r.Barrier(0),
		"VerifyLeader": r.VerifyLeader(),
		"AddNonvoter":  r.AddNonvoter("n2", "n2", 0, 0),
		"RemoveServer": r.RemoveServer("n2", 0, 0),
		"Snapshot":     r.Snapshot(),
		"Transfer":     r.LeadershipTransfer(),
	} {
		bound(f, ended)
		field := reflect.ValueOf(f).Elem().FieldByName("ShutdownCh")
		if !field.IsValid() || field.IsNil() {
			t.Errorf("%s: the future has no ShutdownCh that could be set", name)
		}
		if err := f.Error(); err == nil {
			t.Errorf("%s: no error from a node that does not lead", name)
		}
	}
}

func TestBound_AFutureThatIsNeverAnsweredEndsWithRaft(t *testing.T) {
	r := newBareRaft(t)
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	// verifyCh is buffered and has room; whether the library takes the request
	// or refuses it is a matter of chance, so ask until it has taken one.
	ended := make(chan struct{})
	close(ended)
	for range 64 {
		f := bound(r.VerifyLeader(), ended)
		done := make(chan error, 1)
		go func() { done <- f.Error() }()
		select {
		case err := <-done:
			if !errors.Is(err, raft.ErrRaftShutdown) {
				t.Fatalf("error %v, want %v", err, raft.ErrRaftShutdown)
			}
		case <-time.After(60 * time.Second):
			t.Fatal("waits for ever")
		}
	}
}
