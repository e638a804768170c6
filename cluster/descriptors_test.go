package cluster

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"onceq/fsm/storage"
	"onceq/transport"
	"onceq/transport/wire"
)

// Whatever a process may have open, what clients, strangers and tables can take of it leaves
// the node what it needs itself, and there is room for some of each.
func TestShareDescriptors_LeavesTheNodeWhatItNeeds(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{descriptorsMin, 1024, 4096, 10_000, 20_000, 1 << 20, ^uint64(0)} {
		d, err := shareDescriptors(limit)
		if err != nil {
			t.Errorf("%d: %v", limit, err)
		}
		if d.clients < 48 || d.silent < 8 || d.tables < 64 {
			t.Errorf("%d: %+v is too little of something", limit, d)
		}
		if d.clients > transport.ConnsMax || d.silent > transport.SilentMax || d.tables > storage.OpenTables {
			t.Errorf("%d: %+v is more than usual", limit, d)
		}
		if all := uint64(d.clients + d.silent + d.tables + descriptorsKept); all > limit {
			t.Errorf("%d: %+v takes %d", limit, d, all)
		}
	}
	if d, err := shareDescriptors(20_000); err != nil || d != (descriptors{transport.ConnsMax, transport.SilentMax, storage.OpenTables}) {
		t.Errorf("a large limit bounds %+v, %v", d, err)
	}
}

func TestShareDescriptors_TooFew_SaysWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := shareDescriptors(descriptorsMin - 1)
	if !errors.Is(err, ErrDescriptors) || !strings.Contains(err.Error(), "ulimit -n") || !strings.Contains(err.Error(), "512") {
		t.Errorf("%v", err)
	}
}

// A node whose process may have few files open refuses the clients for which it would have to
// take those that its log needs.
func TestStart_FewDescriptors_BoundsTheClients(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cfg := Config{Name: "n1", DataDir: t.TempDir(), Bind: "127.0.0.1:0", BootstrapExpect: 1, descriptors: descriptorsMin - 1,
		Fatal: func(err error) { t.Errorf("died: %v", err) }}
	if _, err := Start(ctx, cfg); !errors.Is(err, ErrDescriptors) {
		t.Fatalf("with fewer than it needs: %v", err)
	}
	cfg.descriptors = descriptorsMin
	n, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Kill()
	connect := func() error {
		nc, err := net.Dial("tcp", n.Addr())
		if err != nil {
			return err
		}
		c, err := transport.Connect(ctx, nc, transport.ClientConfig{Hello: wire.Hello{Version: wire.Version, Client: "test"}})
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	}
	room, err := shareDescriptors(descriptorsMin)
	if err != nil {
		t.Fatal(err)
	}
	for i := range room.clients {
		if err := connect(); err != nil {
			t.Fatalf("client %d of %d: %v", i+1, room.clients, err)
		}
	}
	if err := connect(); !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeOverloaded}}) {
		t.Errorf("one more: %v", err)
	}
}
