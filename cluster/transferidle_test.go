package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// idling has transfers in virtual time, and says whose streams were cut.
func idling() (t *transfers, cuts func() []string) {
	var mu sync.Mutex
	var all []string
	t = newTransfers(slog.New(slog.DiscardHandler), transferIdleMax, func(peer raft.ServerID, receiving bool) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprintf("%s %v", peer, receiving))
	})
	return t, func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func request(size int64) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ID: []byte("leader")}, LastLogIndex: 7, Size: size}
}

func TestTransfers_LeaderFallsSilent_ItsStreamsAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all, cuts := idling()
		in, out := io.Pipe()
		r := all.receiving(request(100), in)
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, r)
			done <- err
		}()
		for range 3 { // slow, and not silent
			time.Sleep(transferIdleMax - time.Second)
			if _, err := out.Write([]byte("abc")); err != nil {
				t.Fatal(err)
			}
		}
		if c := cuts(); len(c) != 0 {
			t.Fatalf("%v were cut while something came", c)
		}
		// Another one is on its way, and waits until raft has done with the first.
		all.receiving(request(100), in)
		time.Sleep(transferIdleMax + time.Second)
		if c := cuts(); len(c) != 1 || c[0] != "leader true" {
			t.Errorf("cut: %v", c)
		}
		_ = out.CloseWithError(io.ErrUnexpectedEOF)
		<-done
		time.Sleep(2 * transferIdleMax)
		if c := cuts(); len(c) != 1 {
			t.Errorf("cut again: %v", c)
		}
	})
}

// The time in which a follower writes and restores what has come is not silence.
func TestTransfers_SlowDisk_CutsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all, cuts := idling()
		in, out := io.Pipe()
		r := all.receiving(request(6), in)
		go func() { _, _ = out.Write([]byte("abcdef")) }()
		b := make([]byte, 3)
		for range 2 {
			if _, err := io.ReadFull(r, b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * transferIdleMax)
		}
		if c := cuts(); len(c) != 0 {
			t.Errorf("cut: %v", c)
		}
	})
}

func TestTransfers_FollowerTakesNothing_ItsStreamsAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all, cuts := idling()
		r, done := all.sending("follower", request(9), io.LimitReader(zeros{}, 9))
		b := make([]byte, 3)
		for range 2 {
			if _, err := io.ReadFull(r, b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(transferIdleMax - time.Second) // as long as what was read is not sent
		}
		if c := cuts(); len(c) != 0 {
			t.Fatalf("%v were cut while it was sent", c)
		}
		time.Sleep(2 * time.Second)
		if c := cuts(); len(c) != 1 || c[0] != "follower false" {
			t.Errorf("cut: %v", c)
		}
		done(io.ErrClosedPipe)

		// All is sent, and the follower takes its time to restore it.
		r, done = all.sending("follower", request(9), io.LimitReader(zeros{}, 9))
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * transferIdleMax)
		done(nil)
		if c := cuts(); len(c) != 1 {
			t.Errorf("cut again: %v", c)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
