package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// AnnexDir is the directory, inside that of a snapshot, for files that belong to it beside its stream: they may be linked where
// a stream would have to be copied. Whoever writes the snapshot makes it (AnnexSink), and it comes and goes with the snapshot.
const AnnexDir = "annex"

// Annex is what is known of such directories. On their way to another node the files follow the snapshot's own stream:
//
//	stream | "ONCEQANX" | length of owner u16 | owner | length of id u16 | id | what Send writes      (big endian)
//
// The owner is the node that wrote the snapshot, and id is its name there: a node that finds its own name has the directory.
type Annex struct {
	Bytes func(dir string) (int64, error)     // how much Send writes
	Send  func(dir string, w io.Writer) error // the directory as a stream
	// Check reads everything and returns what is damaged, each with its file. It may use scratch, a directory beside, and removes it.
	Check func(dir, scratch string) []error
	// Sum tells a directory from every other, without reading much. It is kept beside the snapshot's description, so that an annex that
	// is gone, or is another snapshot's, is noticed. nil: nothing is kept.
	Sum func(dir string) (uint32, error)
}

// AnnexSink is a snapshot that is being written and that may have an annex.
type AnnexSink interface {
	raft.SnapshotSink
	// AnnexPath is the directory to make, and empty where there are no files.
	AnnexPath() string
}

const annexMagic = "ONCEQANX"

// AnnexHead is what stands between a snapshot's stream and its annex.
type AnnexHead struct{ Owner, ID string }

func (h AnnexHead) append(b []byte) []byte {
	b = append(b, annexMagic...)
	for _, s := range []string{h.Owner, h.ID} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b
}

// ReadAnnexHead reads what follows a snapshot's stream. It returns false when nothing does.
func ReadAnnexHead(r io.Reader) (h AnnexHead, ok bool, err error) {
	magic := make([]byte, len(annexMagic))
	if _, err := io.ReadFull(r, magic); err == io.EOF {
		return h, false, nil
	} else if err != nil || string(magic) != annexMagic {
		return h, false, errors.Join(err, fmt.Errorf("%w: %q follows its end", ErrSnapshotDamaged, magic))
	}
	for _, p := range []*string{&h.Owner, &h.ID} {
		var n [2]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return h, false, fmt.Errorf("%w: annex: %w", ErrSnapshotDamaged, err)
		}
		b := make([]byte, binary.BigEndian.Uint16(n[:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return h, false, fmt.Errorf("%w: annex: %w", ErrSnapshotDamaged, err)
		}
		*p = string(b)
	}
	return h, true, nil
}

// annexOf returns the path of a snapshot's annex, "" when it has none.
func (s *snapshots) annexOf(id string) (string, error) {
	if s.dir == "" {
		return "", nil
	}
	return s.annex.of(filepath.Join(s.dir, id))
}

// of returns the path of the annex of the snapshot in dir, "" when it has none, and an error when it is not the one that was written.
func (a Annex) of(dir string) (string, error) {
	path := filepath.Join(dir, AnnexDir)
	want, summed, err := readAnnexSum(dir)
	if err != nil {
		return "", err
	}
	_, err = os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && summed:
		return "", fmt.Errorf("%w: %s is missing", ErrSnapshotDamaged, path)
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !summed || a.Sum == nil:
		return path, nil
	}
	is, err := a.Sum(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %s: %w", ErrSnapshotDamaged, path, err)
	case is != want:
		return "", fmt.Errorf("%w: %s is not what was written for this snapshot: its sum is %08x, and was %08x", ErrSnapshotDamaged, path, is, want)
	}
	return path, nil
}

// AnnexPath returns the directory of an own snapshot's annex, "" when it is not here.
func (s *Store) AnnexPath(h AnnexHead) string {
	if h.Owner != s.owner || s.snapshotDir == "" || h.ID != filepath.Base(h.ID) {
		return ""
	}
	path := filepath.Join(s.snapshotDir, h.ID, AnnexDir)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// withAnnex continues a snapshot's stream with its annex.
func (s *snapshots) withAnnex(meta *raft.SnapshotMeta, state io.ReadCloser, path string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if s.annex.Send == nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s has an annex, and nobody can read it", meta.ID), state.Close())
	}
	bytes, err := s.annex.Bytes(path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("annex of snapshot %s: %w", meta.ID, err), state.Close())
	}
	head := AnnexHead{s.owner, meta.ID}.append(nil)
	whole := *meta
	whole.Size += int64(len(head)) + bytes
	return &whole, &annexReader{state: state, head: head, send: func(w io.Writer) error { return s.annex.Send(path, w) }}, nil
}

// annexReader is used by one goroutine. The annex is read when somebody gets there: a node that has the directory never does.
type annexReader struct {
	state io.ReadCloser
	head  []byte
	send  func(io.Writer) error

	pipe  *io.PipeReader // nil until the stream has ended
	ended chan struct{}
}

func (r *annexReader) Read(b []byte) (int, error) {
	if r.pipe == nil {
		n, err := r.state.Read(b)
		if err != io.EOF {
			return n, err
		}
		r.begin()
		if n > 0 {
			return n, nil
		}
	}
	return r.pipe.Read(b)
}

func (r *annexReader) begin() {
	reader, writer := io.Pipe()
	r.pipe, r.ended = reader, make(chan struct{})
	go func() {
		defer close(r.ended)
		_, err := writer.Write(r.head)
		if err == nil {
			err = r.send(writer)
		}
		writer.CloseWithError(err)
	}()
}

func (r *annexReader) Close() error {
	if r.pipe != nil {
		_ = r.pipe.Close() // ends the writer
		<-r.ended
	}
	return r.state.Close()
}
