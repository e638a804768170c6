package inbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"onceq/client"
)

// parcel is a delivery whose acks are counted.
type parcel struct {
	biz string
	id  client.MessageID

	mu   sync.Mutex
	acks int
}

func (p *parcel) BizID() string        { return p.biz }
func (p *parcel) ID() client.MessageID { return p.id }

func (p *parcel) Ack(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks++
	return nil
}

func (p *parcel) acked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acks > 0
}

func place(queue string, number, offset uint64) client.MessageID {
	return client.MessageID{Incarnation: 7, QueueNumber: number, Queue: queue, Offset: offset}
}

func order(biz string, offset uint64) *parcel {
	return &parcel{biz: biz, id: place("orders", 1, offset)}
}

func openBolt(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// eachStore runs a test for every Store of this package.
func eachStore(t *testing.T, test func(t *testing.T, s Store)) {
	t.Run("Memory", func(t *testing.T) { test(t, Memory(1000, time.Hour)) })
	t.Run("Bolt", func(t *testing.T) { test(t, Bolt(openBolt(t, filepath.Join(t.TempDir(), "db")), time.Hour)) })
}

func TestHandled_IsAckedWithoutTheHandler(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		o, calls := newOptions(nil), 0
		handle := func() error { calls++; return nil }
		// The second is another message: the sender has published twice.
		for i := range uint64(3) {
			p := order("order-42", i)
			if err := o.once(t.Context(), s, p, handle); err != nil {
				t.Fatal(err)
			}
			if !p.acked() {
				t.Errorf("delivery %d was not acked", i)
			}
		}
		if calls != 1 {
			t.Errorf("the handler was called %d times", calls)
		}
	})
}

func TestFailed_IsNotRemembered(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		o, busy := newOptions(nil), client.RetryAfter(time.Second, errors.New("busy"))
		p := order("order-42", 0)
		if err := o.once(t.Context(), s, p, func() error { return busy }); err != busy {
			t.Errorf("the handler's error became %v", err)
		}
		if p.acked() {
			t.Error("a message that failed was acked")
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic did not reach Consume")
				}
			}()
			_ = o.once(t.Context(), s, p, func() error { panic("bug") })
		}()
		called := false
		if err := o.once(t.Context(), s, p, func() error { called = true; return nil }); err != nil || !called || !p.acked() {
			t.Errorf("after an error and a panic: called %t, acked %t, %v", called, p.acked(), err)
		}
	})
}

func TestSameMessage_IsDecidedByBizIDElseByPlace(t *testing.T) {
	a, b := newOptions([]Option{WithGroup("a")}), newOptions([]Option{WithGroup("b")})
	restored := order("", 5)
	restored.id.Incarnation = 8
	lane := order("", 5)
	lane.id.Lane = 3
	renamed := order("", 5)
	renamed.id.Queue = ""
	for _, test := range []struct {
		name     string
		of, to   *parcel
		ofG, toG options
		same     bool
	}{
		{"biz-id, other place", order("x", 1), order("x", 2), a, a, true},
		{"biz-id, queue created again", order("x", 1), &parcel{biz: "x", id: place("orders", 9, 1)}, a, a, true},
		{"biz-id, other queue", order("x", 1), &parcel{biz: "x", id: place("refunds", 2, 1)}, a, a, false},
		{"biz-id, other group", order("x", 1), order("x", 1), a, b, false},
		{"place", order("", 5), order("", 5), a, a, true},
		{"place, other offset", order("", 5), order("", 6), a, a, false},
		{"place, other lane", order("", 5), lane, a, a, false},
		{"place, other group", order("", 5), order("", 5), a, b, false},
		{"place, queue created again", order("", 5), &parcel{id: place("orders", 9, 5)}, a, a, false},
		{"place, name not known", order("", 5), renamed, a, a, true},
		{"place, cluster restored", order("", 5), restored, a, a, false},
		{"biz-id that looks like a place", order("", 5), order("msg:0/5", 5), a, a, false},
		{"biz-id with a zero byte", order("x\x00y", 1), order("x\x00y", 2), a, a, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Memory(10, 0)
			if err := test.ofG.once(t.Context(), s, test.of, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			called := false
			if err := test.toG.once(t.Context(), s, test.to, func() error { called = true; return nil }); err != nil {
				t.Fatal(err)
			}
			if called == test.same {
				t.Errorf("the handler was called: %t", called)
			}
		})
	}
}

func TestDuplicatesAtTheSameTime_WaitForTheFirst(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		for _, firstFails := range []bool{false, true} {
			o := newOptions(nil)
			id := fmt.Sprintf("order-%t", firstFails)
			inside, release := make(chan struct{}), make(chan error)
			results := make(chan error, 20)
			go func() {
				results <- o.once(t.Context(), s, order(id, 0), func() error { close(inside); return <-release })
			}()
			<-inside
			var mu sync.Mutex
			calls := 0
			for i := range uint64(10) {
				go func() {
					results <- o.once(t.Context(), s, order(id, i), func() error {
						mu.Lock()
						defer mu.Unlock()
						calls++
						return nil
					})
				}()
			}
			// One whose lease is lost while it waits is not handled.
			lost, cancel := context.WithCancelCause(t.Context())
			cancel(client.ErrLeaseLost)
			err := o.once(lost, s, order(id, 11), func() error { t.Error("called without a turn"); return nil })
			if !errors.Is(err, client.ErrLeaseLost) {
				t.Errorf("waiting ended with %v", err)
			}
			// Another message does not wait.
			if err := o.once(t.Context(), s, order("other"+id, 0), func() error { return nil }); err != nil {
				t.Error(err)
			}
			want, failure := 0, error(nil)
			if firstFails {
				want, failure = 1, errors.New("busy")
			}
			release <- failure
			failed := 0
			for range 11 {
				if err := <-results; err != nil {
					failed++
				}
			}
			if calls != want || failed != want {
				t.Errorf("first fails %t: %d of those that waited were called, %d failed", firstFails, calls, failed)
			}
		}
	})
}

func TestTwoStoresOfOneDatabase_WaitForEachOther(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "db"))
	o, inside, release := newOptions(nil), make(chan struct{}), make(chan struct{})
	done := make(chan error, 2)
	go func() {
		done <- o.once(t.Context(), Bolt(db, 0), order("x", 0), func() error { close(inside); <-release; return nil })
	}()
	<-inside
	go func() {
		done <- o.once(t.Context(), Bolt(db, 0), order("x", 0), func() error { t.Error("called twice"); return nil })
	}()
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestMemory_ForgetsTheOldestBeyondNAndBeyondTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Memory(3, time.Minute)
		seen := func(key string) bool {
			t.Helper()
			seen, err := s.Do(t.Context(), key, func() error { return errors.New("only looking") })
			return seen && err == nil
		}
		note := func(keys ...string) {
			for _, key := range keys {
				if _, err := s.Do(t.Context(), key, func() error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
		note("a", "b", "c", "d")
		if seen("a") || !seen("b") || !seen("d") {
			t.Error("of four with room for three the oldest should be forgotten, and no other")
		}
		time.Sleep(2 * time.Minute)
		if !seen("b") {
			t.Error("forgotten although nothing took its place")
		}
		note("e")
		if seen("b") || seen("d") || !seen("e") {
			t.Error("what is older than the TTL should go with the next note")
		}
		if m := s.(*memory); m.order.Len() != 1 || len(m.known) != 1 {
			t.Errorf("%d and %d entries remain", m.order.Len(), len(m.known))
		}
	})
}

func TestBolt_RemembersOverAReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, o := openBolt(t, path), newOptions(nil)
	if err := o.once(t.Context(), Bolt(db, 0), order("x", 0), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := Bolt(openBolt(t, path), 0)
	if err := o.once(t.Context(), s, order("x", 1), func() error { t.Error("called again"); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestBolt_NotWritten_IsAnErrorAndNoAck(t *testing.T) {
	db, o := openBolt(t, filepath.Join(t.TempDir(), "db")), newOptions(nil)
	p := order("x", 0)
	err := o.once(t.Context(), Bolt(db, 0), p, db.Close)
	if err == nil || p.acked() {
		t.Errorf("acked %t, %v: the note is not on disk", p.acked(), err)
	}
	if err := o.once(t.Context(), Bolt(db, 0), p, func() error { t.Error("called without a look"); return nil }); err == nil {
		t.Error("a store that cannot be read let the message pass")
	}
}

func TestBolt_ForgetsAFewAtATimeAndNothingSoonAfterTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	count := func(db *bbolt.DB) (n int) {
		_ = db.View(func(tx *bbolt.Tx) error {
			in := tx.Bucket(inboxBucket)
			n = in.Bucket(knownBucket).Stats().KeyN
			if m := in.Bucket(orderBucket).Stats().KeyN; m != n {
				t.Errorf("%d keys known, %d in order", n, m)
			}
			return nil
		})
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		db := openBolt(t, path)
		defer db.Close()
		s := Bolt(db, time.Minute)
		note := func(s Store, key string) {
			if _, err := s.Do(t.Context(), key, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			note(s, fmt.Sprint("old", i))
		}
		time.Sleep(time.Hour)
		s = Bolt(db, time.Minute) // the consumers were away
		if seen, err := s.Do(t.Context(), "old3", func() error { return errors.New("called") }); !seen || err != nil {
			t.Errorf("a message of which the ack was lost came back after an hour: seen %t, %v", seen, err)
		}
		note(s, "new0")
		if n := count(db); n != 11 {
			t.Errorf("%d remembered right after the start, want all 11", n)
		}
		time.Sleep(time.Minute - time.Second)
		note(s, "new1")
		time.Sleep(time.Second)
		note(s, "new2")
		if n := count(db); n != 13-forgetMax {
			t.Errorf("%d remembered, want %d: one new key removes %d at most", n, 13-forgetMax, forgetMax)
		}
		for i := range 5 {
			note(s, fmt.Sprint("newer", i))
		}
		// Of the new ones the first is past its TTL too.
		if n := count(db); n != 7 {
			t.Errorf("%d remembered, want the 7 that are younger than the TTL", n)
		}
	})
}

func TestBolt_HandlersThatEndTogetherAreAllWritten(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "db"))
	s, o := Bolt(db, 0), newOptions(nil)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			if err := o.once(t.Context(), s, order(fmt.Sprint(i), 0), func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 300 {
		if err := o.once(t.Context(), s, order(fmt.Sprint(i), 0), func() error { t.Errorf("%d is not remembered", i); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTurns_LeaveNothingBehind(t *testing.T) {
	taken.mu.Lock()
	defer taken.mu.Unlock()
	if n := len(taken.busy); n != 0 {
		t.Errorf("%d turns are still taken", n)
	}
}

func TestOptions_RefuseWhatWouldFailForEachMessage(t *testing.T) {
	for name, f := range map[string]func(){
		"memory of none":  func() { Memory(0, 0) },
		"long group":      func() { Handler(Memory(1, 0), nil, WithGroup(strings.Repeat("x", 256))) },
		"zero in group":   func() { Handler(Memory(1, 0), nil, WithGroup("a\x00b")) },
		"group, no text":  func() { Handler(Memory(1, 0), nil, WithGroup("\xff")) },
		"no dialect":      func() { SQL(nil, 0, nil) },
		"table, injected": func() { SQL(nil, PostgreSQL, nil, WithTable("x; DROP TABLE y")) },
		"table, quoted":   func() { Schema(PostgreSQL, WithTable(`"x"`)) },
		"sqlite schema":   func() { Schema(SQLite, WithTable("a.b")) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "inbox: ") {
					t.Errorf("no panic that says why: %v", s)
				}
			}()
			f()
		})
	}
}
