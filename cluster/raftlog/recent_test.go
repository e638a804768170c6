package raftlog

import (
	"bytes"
	"testing"

	"github.com/hashicorp/raft"
)

// counting counts what is read from the store below.
type counting struct {
	*raft.InmemStore
	reads int
}

func (c *counting) GetLog(i uint64, l *raft.Log) error {
	c.reads++
	return c.InmemStore.GetLog(i, l)
}

func openCounting(t *testing.T) (*Store, *counting) {
	c := &counting{InmemStore: raft.NewInmemStore()}
	s := Wrap(c, c, Options{Logger: quiet, Fatal: func(err error) { t.Error(err) }})
	t.Cleanup(func() { s.Close() })
	return s, c
}

func TestGetLog_NewestEntries_AreNotRead(t *testing.T) {
	s, c := openCounting(t)
	mustStore(t, s, owns(1, 100, 1)...)
	var l raft.Log
	for i := uint64(1); i <= 100; i++ {
		if err := s.GetLog(i, &l); err != nil || l.Index != i || VerifyEntry(&l) != nil {
			t.Fatal(i, l, err)
		}
	}
	if c.reads != 0 {
		t.Fatalf("%d reads of entries that were just stored", c.reads)
	}
}

// A bound in entries would keep gigabytes of large ones.
func TestRecent_IsBoundedInBytes(t *testing.T) {
	s, c := openCounting(t)
	const n, size = 40, 1 << 20
	for i := uint64(1); i <= n; i++ {
		mustStore(t, s, own(i, 1, string(bytes.Repeat([]byte{byte(i)}, size))))
	}
	if s.recent.bytes > recentBytesMax || len(s.recent.logs) < recentBytesMax/(2*size) {
		t.Fatalf("%d bytes in %d entries are kept, the bound is %d bytes", s.recent.bytes, len(s.recent.logs), recentBytesMax)
	}
	held := 0
	for i := range s.recent.logs {
		held += entryBytes(&s.recent.logs[i])
	}
	if held != s.recent.bytes {
		t.Fatalf("%d bytes are kept, %d are counted", held, s.recent.bytes)
	}
	var l raft.Log
	if err := s.GetLog(1, &l); err != nil || c.reads != 1 {
		t.Fatalf("the oldest entry: %v, %d reads", err, c.reads)
	}
	// One that is larger than the bound is kept alone: followers ask for it next.
	if recentBytesMax < EntryBytesMax {
		t.Fatal("an entry may be larger than all that is kept")
	}
}

// What raft deletes because of a conflict must not be served from memory, least
// of all to a follower.
func TestRecent_DeletedEntriesAreGone(t *testing.T) {
	s, _ := openCounting(t)
	mustStore(t, s, owns(1, 20, 1)...)
	if err := s.DeleteRange(11, 20); err != nil {
		t.Fatal(err)
	}
	for i := uint64(11); i <= 20; i++ {
		wantMissing(t, s, i)
	}
	mustStore(t, s, owns(11, 15, 2)...)
	var l raft.Log
	if err := s.GetLog(11, &l); err != nil || l.Term != 2 {
		t.Fatal(l, err)
	}
	if err := s.DeleteRange(1, 12); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 12; i++ {
		wantMissing(t, s, i)
	}
	for i := uint64(13); i <= 15; i++ {
		if err := s.GetLog(i, &l); err != nil || l.Index != i || l.Term != 2 {
			t.Fatal(i, l, err)
		}
	}
	if err := s.DeleteRange(13, 15); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, 15)
	if s.recent.bytes != 0 || len(s.recent.logs) != 0 {
		t.Fatalf("%d entries of %d bytes are left of an empty log", len(s.recent.logs), s.recent.bytes)
	}
}
