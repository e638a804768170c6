package raftlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Report is what Verify found.
type Report struct {
	First, Last  uint64 // the log; 0 when it is empty
	Entries      int    // entries that are whole
	Snapshot     uint64 // index of the newest snapshot
	Bytes        int64  // of the newest snapshot
	AnnexBytes   int64  // of the files beside it
	Acknowledged HighWater
	Problems     []error // each names what it is about
}

// problemsMax bounds a Report: a file in which everything is damaged says no more than one in which a hundred entries are.
const problemsMax = 100

// Verify reads everything that a stopped node has in o.Dir, and the newest of the snapshots below snapshots, and compares it with the
// high-water file. It opens the stores as a start does, which may finish what a crash has interrupted, and writes nothing else. An error
// means that the log could not even be opened.
func Verify(o Options, snapshots string) (Report, error) {
	var r Report
	o.Fatal = func(error) {}
	s, err := Open(o)
	if err != nil {
		return r, err
	}
	r.Acknowledged = s.high.file.found
	r.snapshots(s, snapshots, o.Annex)
	if err := r.entries(s); err != nil {
		return r, errors.Join(err, s.Close())
	}
	if len(r.Problems) == 0 {
		now, err := s.present()
		if err == nil {
			err = s.high.file.compare(now, s)
		}
		r.problem(err)
	}
	return r, s.Close()
}

func (r *Report) problem(err error) {
	if err != nil && len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, err)
	}
}

// snapshots opens the newest, which computes its checksum, and reads the files beside it.
func (r *Report) snapshots(s *Store, dir string, annex Annex) {
	// As a start does: it tells of one whose description is gone, which the library passes over.
	if err := tidyFileSnapshots(filepath.Join(dir, fileSnapshotsDir), s.logger); err != nil {
		r.problem(err)
		return
	}
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKeptByVerify, HCLog(s.logger))
	if err != nil {
		r.problem(err)
		return
	}
	all, err := inner.List()
	if err != nil || len(all) == 0 {
		r.problem(err)
		return
	}
	meta, content, err := inner.Open(all[0].ID)
	if err != nil {
		r.problem(fmt.Errorf("%w: %s: %w", ErrSnapshotDamaged, filepath.Join(dir, fileSnapshotsDir, all[0].ID), err))
		return
	}
	r.Snapshot, r.Bytes = meta.Index, meta.Size
	s.SetSnapshot(meta.Index, meta.Term)
	_, err = io.Copy(io.Discard, content)
	r.problem(errors.Join(err, content.Close()))
	r.annex(annex, filepath.Join(dir, fileSnapshotsDir, all[0].ID), filepath.Join(dir, annexScratch))
}

// annexScratch is a directory beside the snapshots that exists while Verify looks.
const annexScratch = "verifying"

func (r *Report) annex(annex Annex, snapshot, scratch string) {
	_, err := annex.of(snapshot)
	r.problem(err)
	dir := filepath.Join(snapshot, AnnexDir)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) || annex.Check == nil {
		return
	}
	bytes, err := annex.Bytes(dir)
	r.problem(err)
	r.AnnexBytes = bytes
	for _, err := range annex.Check(dir, scratch) {
		r.problem(err)
	}
}

// snapshotsKeptByVerify is what the library wants to know and never uses when nothing is created.
const snapshotsKeptByVerify = 1

func (r *Report) entries(s *Store) error {
	var err error
	if r.First, r.Last, err = s.bounds(); err != nil || r.Last == 0 {
		return err
	}
	for i := r.First; i <= r.Last; i++ {
		var l raft.Log
		if err := s.read(i, &l); err != nil {
			r.problem(s.corrupt(i, err))
			continue
		}
		r.Entries++
	}
	return nil
}
