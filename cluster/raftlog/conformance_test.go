package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestLog_Empty(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		wantBounds(t, s, 0, 0)
		wantMissing(t, s, 1)
		if !s.IsMonotonic() {
			t.Fatal("raft would leave gaps in the log")
		}
		if err := s.StoreLogs(nil); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteRange(1, 10); err != nil {
			t.Fatal(err)
		}
		f.wantNone(t)
	})
}

func TestLog_EveryTypeGetsAChecksum_AndSurvivesRestart(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		var logs []*raft.Log
		for typ := raft.LogCommand; typ <= raft.LogConfiguration; typ++ {
			logs = append(logs, &raft.Log{Index: uint64(typ) + 1, Term: 3, Type: typ, Data: bytes.Repeat([]byte{0xA5}, int(typ)*100)})
		}
		mustStore(t, s, logs...)
		if err := s.StoreLog(own(uint64(len(logs))+1, 4, "one")); err != nil {
			t.Fatal(err)
		}
		for _, l := range logs {
			if len(l.Extensions) != checksumBytes {
				t.Fatalf("entry %d left StoreLogs without a checksum: Apply and followers could not verify it", l.Index)
			}
		}
		for range 2 {
			wantBounds(t, s, 1, uint64(len(logs))+1)
			for _, l := range logs {
				wantEntry(t, s, l)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
		}
		f.wantNone(t)
	})
}

func TestLog_ReplicatedEntry_IsVerifiedBeforeItIsStored(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		good := sealed(1, 2, "good")
		mustStore(t, s, good)
		wantEntry(t, s, good)
		bad := sealed(3, 2, "bad")
		bad.Data[0] ^= 4
		err := s.StoreLogs([]*raft.Log{sealed(2, 2, "good too"), bad})
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Index != 3 || !errors.Is(err, ErrChecksum) {
			t.Fatalf("StoreLogs = %v, want a CorruptError for entry 3", err)
		}
		f.wantOne(t, ErrChecksum)
		wantBounds(t, s, 1, 1)
	})
}

func TestLog_Gap_IsRefused(t *testing.T) {
	for name, logs := range map[string][]*raft.Log{
		"behind the log":   {own(12, 1, "x")},
		"inside the batch": {own(11, 1, "x"), own(13, 1, "y")},
		"overwrite":        {own(10, 1, "x")},
		"backwards":        {own(11, 1, "x"), own(10, 1, "y")},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
				s := open()
				mustStore(t, s, owns(1, 10, 1)...)
				if err := s.StoreLogs(logs); err == nil {
					t.Fatal("stored")
				}
				if len(f.all()) != 1 {
					t.Fatalf("Fatal: %v", f.all())
				}
				wantBounds(t, s, 1, 10)
			})
		})
	}
}

func TestLog_DeleteRange(t *testing.T) {
	for _, c := range []struct {
		from, to    uint64
		first, last uint64
	}{
		{1, 4, 5, 10},   // compaction, some of it done before
		{3, 3, 4, 10},   // prefix of one
		{8, 10, 3, 7},   // conflict
		{8, 99, 3, 7},   // raft names a tail that is gone
		{10, 10, 3, 9},  // suffix of one
		{3, 10, 0, 0},   // snapshot installed
		{1, 99, 0, 0},   // more than all
		{1, 2, 3, 10},   // gone before
		{11, 20, 3, 10}, // never there
		{9, 8, 3, 10},   // nothing
	} {
		t.Run(fmt.Sprintf("%d-%d", c.from, c.to), func(t *testing.T) {
			eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
				s := open()
				logs := owns(1, 10, 1)
				mustStore(t, s, logs...)
				if err := s.DeleteRange(1, 2); err != nil {
					t.Fatal(err)
				}
				if err := s.DeleteRange(c.from, c.to); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					wantBounds(t, s, c.first, c.last)
					for _, l := range logs {
						if c.first <= l.Index && l.Index <= c.last {
							wantEntry(t, s, l)
						} else {
							wantMissing(t, s, l.Index)
						}
					}
					s.Close()
					s = open()
				}
				next := c.last + 1
				if c.last == 0 {
					next = 77 // an empty log starts anywhere
				}
				mustStore(t, s, own(next, 2, "next"))
				f.wantNone(t)
			})
		})
	}
}

func TestLog_DeleteRange_InTheMiddle_IsRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		mustStore(t, s, owns(1, 10, 1)...)
		if err := s.DeleteRange(4, 6); err == nil || len(f.all()) != 1 {
			t.Fatalf("a hole in the log: %v, Fatal %v", err, f.all())
		}
		wantBounds(t, s, 1, 10)
	})
}

func TestLog_DeleteRange_OfManyChunks(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		const n = 5*deleteChunk + 100
		mustStore(t, s, owns(1, n, 1)...)
		if err := s.DeleteRange(1, deleteChunk+7); err != nil {
			t.Fatal(err)
		}
		wantBounds(t, s, deleteChunk+8, n)
		if err := s.DeleteRange(3*deleteChunk, n); err != nil {
			t.Fatal(err)
		}
		wantBounds(t, s, deleteChunk+8, 3*deleteChunk-1)
		if err := s.DeleteRange(1, n); err != nil {
			t.Fatal(err)
		}
		wantBounds(t, s, 0, 0)
		f.wantNone(t)
	})
}

func TestLog_EntrySize_AtTheLimitAndOneBeyond(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		most := EntryBytesMax - checksumBytes
		large := own(1, 1, strings.Repeat("x", most))
		if err := CheckEntry(large.Data); err != nil {
			t.Fatal(err)
		}
		mustStore(t, s, large)
		tooLarge := own(3, 1, strings.Repeat("x", most+1))
		if err := CheckEntry(tooLarge.Data); !errors.Is(err, ErrEntryTooLarge) {
			t.Fatalf("CheckEntry = %v", err)
		}
		err := s.StoreLogs([]*raft.Log{own(2, 1, "small"), tooLarge})
		if !errors.Is(err, ErrEntryTooLarge) {
			t.Fatalf("StoreLogs = %v", err)
		}
		if Classify(err) != OutcomeNothingAppended {
			t.Fatal("the whole batch was refused, so nothing was appended")
		}
		f.wantNone(t) // a restart would not make it smaller
		wantBounds(t, s, 1, 1)
		mustStore(t, s, own(2, 1, "next"))
		s.Close()
		s = open()
		wantBounds(t, s, 1, 2)
		wantEntry(t, s, large)
	})
}

// The header stands for the entry only where nobody can take it for the entry.
func TestHeader_OnlyWhileTheLogLiesWhollyBehindTheSnapshot(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, last uint64 // the log; 0: empty
		snap        uint64
		want        bool
	}{
		{"empty log", 0, 0, 10, true},
		{"log behind", 11, 15, 10, true},
		{"log has it", 5, 15, 10, false}, // the entry itself is returned
		{"log ends with its predecessor", 5, 9, 10, false},
		{"log ends before its predecessor", 5, 7, 10, false},
		{"log begins with it", 10, 12, 10, false},
		{"no snapshot", 0, 0, 0, false},
		{"first index has no predecessor to ask for", 0, 0, 1, false},
		{"first index, log behind", 2, 5, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
				s := open()
				if c.last != 0 {
					mustStore(t, s, owns(c.first, c.last, 4)...)
				}
				s.SetSnapshot(c.snap, 3)
				var l raft.Log
				err := s.GetLog(c.snap, &l)
				if c.first <= c.snap && c.snap <= c.last && c.snap != 0 {
					if err != nil || l.Term != 4 || VerifyEntry(&l) != nil {
						t.Fatalf("the entry itself: %+v, %v", l, err)
					}
					return
				}
				if !c.want {
					wantMissing(t, s, c.snap)
					return
				}
				if err != nil || l.Index != c.snap || l.Term != 3 || l.Type != raft.LogNoop || len(l.Data) != 0 {
					t.Fatalf("header = %+v, %v", l, err)
				}
				wantMissing(t, s, c.snap-1)
				wantMissing(t, s, c.last+100)
				// Should it get out: a follower refuses it in both places.
				if err := checkAppend(&raft.AppendEntriesRequest{Term: 9, PrevLogEntry: c.snap - 1, Entries: []*raft.Log{&l}}); !errors.Is(err, ErrChecksum) {
					t.Fatalf("Guard lets the header through: %v", err)
				}
				f.wantNone(t)
				other := Wrap(raft.NewInmemStore(), raft.NewInmemStore(), Options{Logger: quiet, Fatal: f.record})
				defer other.Close()
				if err := other.StoreLogs([]*raft.Log{&l}); !errors.Is(err, ErrChecksum) {
					t.Fatalf("StoreLogs takes the header: %v", err)
				}
			})
		})
	}
}

// A crash between the install of a snapshot and the emptying of the log leaves a log that ends before the snapshot.
func TestLog_ThatEndsBeforeTheSnapshot_IsEmptiedByTheNextAppend(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		mustStore(t, s, owns(1, 9, 1)...)
		s.SetSnapshot(10, 2)
		mustStore(t, s, sealed(11, 2, "a"), sealed(12, 2, "b"))
		wantBounds(t, s, 11, 12)
		wantMissing(t, s, 9)
		var l raft.Log
		if err := s.GetLog(10, &l); err != nil || l.Term != 2 {
			t.Fatalf("header = %+v, %v", l, err)
		}
		f.wantNone(t)
	})
}

func TestLog_EmptyBehindASnapshot_StartsRightBehindIt(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		s.SetSnapshot(10, 2)
		if err := s.StoreLogs([]*raft.Log{own(13, 2, "hole")}); err == nil || len(f.all()) != 1 {
			t.Fatalf("an append with a hole behind the snapshot: %v, Fatal %v", err, f.all())
		}
	})
}

func TestLog_SnapshotReplacesALongerLog_AsksForARestart(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		mustStore(t, s, owns(1, 20, 1)...)
		s.SetSnapshot(15, 2)
		if err := s.DeleteRange(1, 20); !errors.Is(err, ErrRestart) {
			t.Fatalf("DeleteRange = %v: raft would go on with a tail in memory that is gone", err)
		}
		f.wantOne(t, ErrRestart)
		s.Close()
		s = open()
		s.SetSnapshot(15, 2)
		wantBounds(t, s, 0, 0)
		mustStore(t, s, own(16, 3, "next"))
		// A conflict that takes all of the log behind a snapshot is not that case: raft corrects its memory itself.
		if err := s.DeleteRange(16, 16); err != nil {
			t.Fatal(err)
		}
		f.wantOne(t, ErrRestart)
	})
}

func TestStable_Values(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		if _, err := s.Get([]byte("k")); err == nil || err.Error() != "not found" {
			t.Fatalf("Get of nothing = %v; raft compares the text", err)
		}
		if n, err := s.GetUint64([]byte("n")); n != 0 || err != nil {
			t.Fatalf("GetUint64 of nothing = %d, %v", n, err)
		}
		for i, want := range []string{"v1", "", "v2"} {
			if err := s.Set([]byte("k"), []byte(want)); err != nil {
				t.Fatal(err)
			}
			if err := s.SetUint64([]byte("n"), uint64(1)<<63+uint64(i)); err != nil {
				t.Fatal(err)
			}
			s.Close()
			s = open()
			if v, err := s.Get([]byte("k")); err != nil || string(v) != want {
				t.Fatalf("Get = %q, %v, want %q", v, err, want)
			}
			if n, err := s.GetUint64([]byte("n")); err != nil || n != uint64(1)<<63+uint64(i) {
				t.Fatalf("GetUint64 = %d, %v", n, err)
			}
		}
		f.wantNone(t)
	})
}

func TestStable_VoteIsOneWrite(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		term, cand := []byte(raftVoteTerm), []byte(raftVoteCandidate)
		if _, err := s.Get(cand); err == nil || err.Error() != "not found" {
			t.Fatalf("no vote = %v", err)
		}
		vote := func(n uint64, c string) {
			t.Helper()
			if err := s.SetUint64(term, n); err != nil {
				t.Fatal(err)
			}
			if err := s.Set(cand, []byte(c)); err != nil {
				t.Fatal(err)
			}
		}
		want := func(n uint64, c string) {
			t.Helper()
			gotTerm, err := s.GetUint64(term)
			if err != nil {
				t.Fatal(err)
			}
			gotCand, err := s.Get(cand)
			if err != nil || gotTerm != n || string(gotCand) != c {
				t.Fatalf("vote = %d for %q, %v; want %d for %q", gotTerm, gotCand, err, n, c)
			}
		}
		vote(4, "node-a")
		want(4, "node-a")
		s.Close()
		s = open()
		want(4, "node-a")
		vote(5, "b")
		want(5, "b")
		// The process dies between raft's two calls: the vote before it stands whole, and nothing was answered.
		if err := s.SetUint64(term, 6); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = open()
		want(5, "b")
		f.wantNone(t)
	})
}

func TestStore_ClosedTwice_RefusesWritesQuietly(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		s := open()
		mustStore(t, s, own(1, 1, "x"))
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for name, err := range map[string]error{
			"StoreLogs":   s.StoreLogs([]*raft.Log{own(2, 1, "y")}),
			"DeleteRange": s.DeleteRange(1, 1),
			"Set":         s.Set([]byte("k"), nil),
			"SetUint64":   s.SetUint64([]byte("k"), 1),
			"vote":        s.SetUint64([]byte(raftVoteTerm), 1),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s after Close = %v", name, err)
			}
		}
		f.wantNone(t)
	})
}
