package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func TestVerifyEntry_NoticesEveryFlippedBit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &raft.Log{
			Index: rapid.Uint64().Draw(t, "index"),
			Term:  rapid.Uint64().Draw(t, "term"),
			Type:  raft.LogType(rapid.Byte().Draw(t, "type")),
			Data:  rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "data"),
		}
		if err := VerifyEntry(l); !errors.Is(err, ErrNoChecksum) {
			t.Fatalf("without checksum: %v", err)
		}
		sealEntry(l)
		if err := VerifyEntry(l); err != nil {
			t.Fatal(err)
		}
		bit := rapid.IntRange(0, 8*(8+8+1+len(l.Data)+checksumBytes)-1).Draw(t, "bit")
		mask := byte(1) << (bit % 8)
		switch at := bit / 8; {
		case at < 8:
			l.Index ^= 1 << bit
		case at < 16:
			l.Term ^= 1 << (bit - 64)
		case at < 17:
			l.Type ^= raft.LogType(mask)
		case at < 17+len(l.Data):
			l.Data[at-17] ^= mask
		default:
			l.Extensions[at-17-len(l.Data)] ^= mask
		}
		if err := VerifyEntry(l); !errors.Is(err, ErrChecksum) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	})
}

// The layout is on disk: this is its definition, written down a second time.
func TestChecksum_Layout(t *testing.T) {
	l := own(0x0102, 0x0304, "data")
	sealEntry(l)
	covered := []byte("\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x03\x04\x00data")
	want := binary.BigEndian.AppendUint32([]byte{1}, crc32.Checksum(covered, crc32.MakeTable(crc32.Castagnoli)))
	if !bytes.Equal(l.Extensions, want) {
		t.Fatalf("extension % x, want % x", l.Extensions, want)
	}
}

func TestVerifyEntry_TruncatedOrLongerExtension(t *testing.T) {
	for n := 0; n < 2*checksumBytes; n++ {
		l := sealed(1, 1, "data")
		l.Extensions = append(l.Extensions, make([]byte, checksumBytes)...)[:n]
		if err := VerifyEntry(l); (err == nil) != (n == checksumBytes) {
			t.Errorf("extension of %d bytes: %v", n, err)
		}
	}
}

// flipInFiles flips one bit in every occurrence of needle in the files below dir: boltdb leaves copies in pages that are free.
func flipInFiles(t *testing.T, dir string, needle []byte) {
	t.Helper()
	found := 0
	damaged := bytes.Clone(needle)
	damaged[len(needle)/2] ^= 0x10
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, needle) {
			return err
		}
		found++
		return os.WriteFile(path, bytes.ReplaceAll(b, needle, damaged), 0o600)
	})
	if err != nil || found == 0 {
		t.Fatalf("damage %q: found in %d files, %v", needle, found, err)
	}
}

func TestGetLog_DamagedAtRest_NamesThePlaceAndIsFatal(t *testing.T) {
	for _, k := range []string{KindWAL, KindBolt} {
		t.Run(k, func(t *testing.T) {
			dir, f := filepath.Join(t.TempDir(), "raft"), &fatals{}
			o := Options{Dir: dir, Kind: k, Logger: quiet, Fatal: f.record}
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			// One batch each: raft-wal takes damage in the last batch for a write that was torn by a crash, and drops it.
			mustStore(t, s, own(1, 1, strings.Repeat("before-", 20)))
			mustStore(t, s, own(2, 1, strings.Repeat("the-needle-", 20)))
			mustStore(t, s, own(3, 1, strings.Repeat("after-", 20)))
			s.Close()
			flipInFiles(t, dir, []byte("the-needle-the-needle"))
			if s, err = Open(o); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			wantEntry(t, s, sealed(1, 1, strings.Repeat("before-", 20)))
			f.wantNone(t)
			var l raft.Log
			err = s.GetLog(2, &l)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || !errors.Is(err, ErrChecksum) {
				t.Fatalf("GetLog = %v", err)
			}
			for _, want := range []string{"entry 2", k, dir} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
			f.wantOne(t, ErrChecksum)
			if err := s.StoreLogs([]*raft.Log{own(4, 1, "x")}); !errors.Is(err, ErrFailed) {
				t.Errorf("append after damage was found = %v", err)
			}
		})
	}
}

func TestScrub_FindsWhatNobodyReads(t *testing.T) {
	for _, k := range []string{KindWAL, KindBolt} {
		t.Run(k, func(t *testing.T) {
			dir, f := filepath.Join(t.TempDir(), "raft"), &fatals{}
			o := Options{Dir: dir, Kind: k, Logger: quiet, Fatal: f.record}
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			mustStore(t, s, owns(1, 199, 1)...)
			mustStore(t, s, own(200, 1, strings.Repeat("the-needle-", 20)))
			mustStore(t, s, own(201, 1, "after"))
			if n, err := s.Scrub(t.Context(), 0); n != 201 || err != nil {
				t.Fatalf("Scrub = %d, %v", n, err)
			}
			s.Close()
			flipInFiles(t, dir, []byte("the-needle-the-needle"))
			if s, err = Open(o); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n, err := s.Scrub(t.Context(), 0); n != 199 || !errors.Is(err, ErrChecksum) {
				t.Fatalf("Scrub = %d, %v", n, err)
			}
			f.wantOne(t, ErrChecksum)
		})
	}
}

func TestStable_DamagedAtRest_IsFatal(t *testing.T) {
	dir, f := filepath.Join(t.TempDir(), "raft"), &fatals{}
	o := Options{Dir: dir, Logger: quiet, Fatal: f.record}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte(raftVoteTerm), 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte(raftVoteCandidate), []byte("the-candidate-of-this-vote")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	flipInFiles(t, dir, []byte("the-candidate-of-this-vote"))
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v, err := s.Get([]byte(raftVoteCandidate)); err == nil {
		t.Fatalf("a damaged vote was read: %q", v)
	}
	if len(f.all()) != 1 {
		t.Fatalf("Fatal: %v", f.all())
	}
}
