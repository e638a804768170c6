package raftlog

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// TestOpen_BoltDamagedAnywhere_IsAnErrorOrWhole: the library reads a file in a goroutine of its own, where a fault or a panic ends
// the process, whoever has opened it. Whatever is damaged, a process that opens a log or looks at one goes on.
func TestOpen_BoltDamagedAnywhere_IsAnErrorOrWhole(t *testing.T) {
	t.Parallel()
	const entries = 400
	dir := t.TempDir()
	whole := filepath.Join(dir, "log")
	s := newLife(t, dir, KindBolt)
	random := rand.New(rand.NewPCG(1, 2))
	for i := uint64(1); i <= entries; i += 20 {
		var logs []*raft.Log
		for j := i; j < i+20; j++ {
			size := random.IntN(600)
			if j%50 == 0 {
				size = 20_000 // beyond a page
			}
			logs = append(logs, own(j, 1, string(make([]byte, size))))
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	healthy, err := os.ReadFile(filepath.Join(whole, BoltFile))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	damages := map[string]func(b []byte, r *rand.Rand) []byte{
		"cut":     func(b []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))] },
		"zeroed":  func(b []byte, r *rand.Rand) []byte { clear(b[r.IntN(len(b)):]); return b },
		"hole":    func(b []byte, r *rand.Rand) []byte { i := r.IntN(len(b)); clear(b[i:min(len(b), i+64)]); return b },
		"flipped": func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b },
		"header": func(b []byte, r *rand.Rand) []byte { // where a page tells what it is
			b[r.IntN(len(b)/page)*page+r.IntN(16)] ^= 1 << r.IntN(8)
			return b
		},
		"table": func(b []byte, r *rand.Rand) []byte { // where a page tells what is in it
			b[r.IntN(len(b)/page)*page+16+r.IntN(64)] ^= 1 << r.IntN(8)
			return b
		},
		"pages exchanged": func(b []byte, r *rand.Rand) []byte {
			i, j := r.IntN(len(b)/page)*page, r.IntN(len(b)/page)*page
			old := append([]byte(nil), b[i:i+page]...)
			copy(b[i:], b[j:j+page])
			copy(b[j:], old)
			return b
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused, dir := 0, filepath.Join(t.TempDir(), "log")
			for seed := range uint64(60) {
				b := damage(append([]byte(nil), healthy...), rand.New(rand.NewPCG(seed, 3)))
				path := filepath.Join(t.TempDir(), BoltFile)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				if checkBolt(path) != nil {
					refused++
					continue
				}
				if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(whole)), os.Rename(path, filepath.Join(dir, BoltFile))); err != nil {
					t.Fatal(err)
				}
				report, err := Verify(Options{Dir: dir, Kind: KindBolt, Logger: quiet, Owner: "n1-a", Known: true}, t.TempDir())
				switch {
				case err != nil && strings.Contains(err.Error(), "freepages"):
					t.Errorf("seed %d: the library came upon it: %v", seed, err)
				case err != nil || len(report.Problems) > 0:
					refused++
				case report.Entries != entries:
					t.Errorf("seed %d: entries %d to %d, and nothing is wrong with that: %+v", seed, report.First, report.Last, report)
				}
			}
			if refused == 0 {
				t.Error("no damage was noticed")
			}
		})
	}
}

// TestOpen_BoltHalfMade_IsMadeAnew: a process that ended while it made its files has left none under their names.
func TestOpen_BoltHalfMade_IsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{KindWAL, KindBolt} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := Options{Dir: t.TempDir(), Kind: kind, Logger: quiet}
			for _, name := range []string{stableFile, BoltFile} {
				if err := os.WriteFile(filepath.Join(o.Dir, name+halfMade), make([]byte, 3*4096), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // made, and found
				s, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(o.Dir, stableFile+halfMade)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was half made is still there: %v", err)
			}
		})
	}
}

// TestCheckBolt_WhatCannotBeRead_IsNotCalledDamaged: a directory cannot be read, like a file on a disk that fails.
func TestCheckBolt_WhatCannotBeRead_IsNotCalledDamaged(t *testing.T) {
	t.Parallel()
	err := checkBolt(t.TempDir())
	if !errors.Is(err, syscall.EISDIR) || strings.Contains(err.Error(), "invalid") || errors.Is(err, ErrFileDamaged) {
		t.Errorf("it is told as %v", err)
	}
}
