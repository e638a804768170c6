package storage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"onceq/fsm"
)

// Pebble leaves one goroutine behind when it cannot open a database. A database that
// was not closed has others as well.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// store is what both implementations are.
type store interface {
	fsm.BodyStore
	Get(queue uint64, lane uint8, offset uint64) (publishedAt int64, message []byte, ok bool)
}

// fatals records what Fatal is called with.
type fatals struct {
	mu   sync.Mutex
	errs []error
	came chan struct{}
}

func newFatals() *fatals { return &fatals{came: make(chan struct{}, 100)} }

func (f *fatals) record(err error) {
	f.mu.Lock()
	f.errs = append(f.errs, err)
	f.mu.Unlock()
	f.came <- struct{}{}
}

func (f *fatals) all() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]error(nil), f.errs...)
}

// openTest opens a Pebble on fs that ends with the test, which fails if the store
// does.
func openTest(t testing.TB, fs vfs.FS, dir string, youngBytes int64) *Pebble {
	t.Helper()
	f := newFatals()
	s := openWith(t, fs, dir, youngBytes, f)
	t.Cleanup(func() {
		if errs := f.all(); len(errs) > 0 {
			t.Errorf("the store has failed: %v", errs)
		}
	})
	return s
}

func openWith(t testing.TB, fs vfs.FS, dir string, youngBytes int64, f *fatals) *Pebble {
	t.Helper()
	s, err := OpenPebble(Options{Dir: dir, FS: fs, YoungBytes: youngBytes, Fatal: f.record, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// eachStore runs the test on every implementation. With a budget of one byte
// every body goes to disk at once, with a large one none does, and with the one
// between they do while the test runs.
func eachStore(t *testing.T, test func(t *testing.T, s store)) {
	t.Run("memory", func(t *testing.T) { test(t, NewMemory()) })
	for name, budget := range map[string]int64{"pebble on disk": 1, "pebble with some young": 20_000, "pebble all young": 1 << 30} {
		t.Run(name, func(t *testing.T) { test(t, openTest(t, vfs.NewMem(), "live", budget)) })
	}
}

func want(t *testing.T, s store, queue uint64, lane uint8, offset uint64, at int64, message string) {
	t.Helper()
	gotAt, got, ok := s.Get(queue, lane, offset)
	if !ok || gotAt != at || string(got) != message {
		t.Fatalf("Get(%d, %d, %d) = %d, %q, %v; want %d, %q", queue, lane, offset, gotAt, got, ok, at, message)
	}
}

// eventually waits for what a goroutine of the store does.
func eventually(t testing.TB, f func() (missing string)) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	bound := time.After(time.Minute)
	for {
		missing := f()
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-bound:
			t.Fatalf("after a minute: %s", missing)
		}
	}
}

// gone waits until a body cannot be had: a delete may take its time.
func gone(t *testing.T, s store, queue uint64, lane uint8, offset uint64) {
	t.Helper()
	eventually(t, func() string {
		if _, m, ok := s.Get(queue, lane, offset); ok {
			return fmt.Sprintf("body %d of lane %d of queue %d is there: %q", offset, lane, queue, m)
		}
		return ""
	})
}

func TestStore_PutGetDelete(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		for q := uint64(1); q <= 2; q++ {
			for l := range uint8(2) {
				for o := range uint64(1000) {
					s.Put(q, l, o, int64(o)-500, fmt.Appendf(nil, "%d/%d/%d", q, l, o))
				}
			}
		}
		s.Put(1, 0, 7, 3, []byte("newer"))
		want(t, s, 1, 0, 7, 3, "newer")
		want(t, s, 2, 1, 999, 499, "2/1/999")
		s.Put(3, 0, ^uint64(0)-1, 1, nil)
		s.Delete(1, 0, 5)
		s.Delete(1, 0, 5)
		s.Delete(9, 9, 9)
		s.DeleteRange(1, 1, 100, 900)
		s.DeleteRange(1, 1, 50, 50)
		gone(t, s, 1, 0, 5)
		gone(t, s, 1, 1, 100)
		gone(t, s, 1, 1, 899)
		gone(t, s, 1, 0, 1000)
		for _, o := range []uint64{4, 6} {
			want(t, s, 1, 0, o, int64(o)-500, fmt.Sprintf("1/0/%d", o))
		}
		for _, o := range []uint64{50, 99, 900} {
			want(t, s, 1, 1, o, int64(o)-500, fmt.Sprintf("1/1/%d", o))
		}
		want(t, s, 2, 1, 100, -400, "2/1/100")
		s.DeleteRange(2, 1, 0, ^uint64(0))
		gone(t, s, 2, 1, 0)
		want(t, s, 2, 0, 0, -500, "2/0/0")
		s.Reset()
		gone(t, s, 2, 0, 0)
		s.Put(1, 0, 5, 1, []byte("after the reset"))
		want(t, s, 1, 0, 5, 1, "after the reset")
	})
}

// collect reads a view.
func collect(t *testing.T, f fsm.FrozenBodies) map[place]string {
	t.Helper()
	got := map[place]string{}
	err := f.Each(func(queue uint64, lane uint8, offset uint64, at int64, m []byte) error {
		got[place{laneID{queue, lane}, offset}] = fmt.Sprintf("%d %s", at, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever is deleted and put while a view is open, it has every body of its
// moment, and deletes come true when it is released.
func TestStore_Freeze(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		for o := range uint64(600) {
			s.Put(1, 0, o, int64(o), fmt.Appendf(nil, "body %d", o))
		}
		s.Delete(1, 0, 3)
		f := s.Freeze()
		s.Delete(1, 0, 10)
		s.DeleteRange(1, 0, 300, 400)
		for o := uint64(600); o < 800; o++ {
			s.Put(1, 0, o, int64(o), []byte("newer"))
		}
		s.Delete(1, 0, 700)
		broken := errors.New("disk full")
		if err := f.Each(func(uint64, uint8, uint64, int64, []byte) error { return broken }); !errors.Is(err, broken) {
			t.Fatalf("Each = %v", err)
		}
		got := collect(t, f)
		for o := range uint64(600) {
			p, w := place{laneID{1, 0}, o}, fmt.Sprintf("%d body %d", o, o)
			if got[p] != w && o != 3 {
				t.Fatalf("the view has %q for %d, want %q", got[p], o, w)
			}
		}
		f.Release()
		f.Release()
		for _, o := range []uint64{3, 10, 300, 399, 700} {
			gone(t, s, 1, 0, o)
		}
		want(t, s, 1, 0, 400, 400, "body 400")
		want(t, s, 1, 0, 799, 799, "newer")
		eventually(t, func() string {
			again := s.Freeze()
			defer again.Release()
			if got := collect(t, again); len(got) != 800-103 {
				return fmt.Sprintf("the next view has %d bodies", len(got))
			}
			return ""
		})
	})
}

// Random calls against a map. At the end the store holds what the map does, and
// no more.
func TestStore_RandomCalls(t *testing.T) {
	for seed := range uint64(8) {
		eachStore(t, func(t *testing.T, s store) {
			rng := rand.New(rand.NewPCG(seed, 7))
			model := map[place]string{}
			next := map[laneID]uint64{}
			var views []fsm.FrozenBodies
			var then []map[place]string
			for range 4000 {
				id := laneID{1 + rng.Uint64N(3), uint8(rng.UintN(2))}
				switch n := rng.IntN(100); {
				case n < 55:
					o := next[id]
					next[id]++
					m := bytes.Repeat([]byte{byte(o)}, rng.IntN(200))
					s.Put(id.queue, id.lane, o, int64(o), m)
					model[place{id, o}] = fmt.Sprintf("%d %s", o, m)
				case n < 90 && next[id] > 0:
					o := rng.Uint64N(next[id])
					s.Delete(id.queue, id.lane, o)
					delete(model, place{id, o})
				case n < 92 && next[id] > 0:
					from := rng.Uint64N(next[id])
					to := from + rng.Uint64N(50)
					s.DeleteRange(id.queue, id.lane, from, min(to, next[id]))
					for o := from; o < min(to, next[id]); o++ {
						delete(model, place{id, o})
					}
				case n >= 96 && n < 99 && next[id] > 0:
					from, to := place{id, rng.Uint64N(next[id])}, laneID{1 + rng.Uint64N(3), uint8(rng.UintN(2))}
					if m, ok := model[from]; ok {
						p := place{to, next[to]}
						next[to]++
						s.Move(from.lane.queue, from.lane.lane, from.offset, to.queue, to.lane, p.offset)
						delete(model, from)
						model[p] = m
					}
				case n < 94 && len(views) < 2:
					views = append(views, s.Freeze())
					snap := map[place]string{}
					for k, v := range model {
						snap[k] = v
					}
					then = append(then, snap)
				case n < 96 && len(views) > 0:
					got := collect(t, views[0])
					for p, w := range then[0] {
						if got[p] != w {
							t.Fatalf("seed %d: the view has %q at %v, want %q", seed, got[p], p, w)
						}
					}
					views[0].Release()
					views, then = views[1:], then[1:]
				default:
					for p, w := range model {
						at, m, ok := s.Get(p.lane.queue, p.lane.lane, p.offset)
						if got := fmt.Sprintf("%d %s", at, m); !ok || got != w {
							t.Fatalf("seed %d: %v is %q, %v; want %q", seed, p, got, ok, w)
						}
						break
					}
				}
			}
			for _, v := range views {
				v.Release()
			}
			eventually(t, func() string {
				f := s.Freeze()
				defer f.Release()
				got := collect(t, f)
				for p, w := range model {
					if got[p] != w {
						t.Fatalf("seed %d: at the end %q at %v, want %q", seed, got[p], p, w)
					}
				}
				if len(got) != len(model) {
					return fmt.Sprintf("seed %d: %d bodies at the end, want %d", seed, len(got), len(model))
				}
				return ""
			})
		})
	}
}
