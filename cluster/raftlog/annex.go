package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

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
	// Parts compares the directory with what was written, and names the files that CheckPart reads, one at a time, with pauses. Both wrap
	// ErrSnapshotDamaged. nil: ScrubSnapshot leaves it out.
	Parts     func(dir string) ([]string, error)
	CheckPart func(path string) (bytes int64, err error)
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

var errNoAnnexReader = errors.New("it has an annex, and nobody can read that")

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
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s: %w", meta.ID, errNoAnnexReader), state.Close())
	}
	bytes, err := s.annex.Bytes(path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("annex of snapshot %s: %w", meta.ID, err), state.Close())
	}
	head := AnnexHead{s.owner, meta.ID}.append(nil)
	all, whole := *meta, s.rot.reading()
	all.Size += int64(len(head)) + bytes
	return &all, &annexReader{state: state, head: head, send: func(w io.Writer) error {
		err := s.annex.Send(path, w)
		switch {
		case err == nil:
			whole()
		case errors.Is(err, ErrSnapshotDamaged):
			err = fmt.Errorf("send snapshot %s: %w", meta.ID, err)
			s.annexDamaged(meta.ID, err)
		}
		return err
	}}, nil
}

// annexDamaged tells of a newest snapshot whose annex is damaged. It ends nothing, like one that cannot be opened: what is live may be
// whole, and lost with the process, which would load the damaged files when it starts again.
func (s *snapshots) annexDamaged(id string, err error) (newest bool) {
	if !s.isNewest(id) {
		return false // the next is read, whole or not
	}
	again := s.rot.found(id, err)
	if s.damaged != nil {
		s.damaged(err, again)
	}
	return true
}

// rot is the damage of snapshots that was found since one was read through and was whole. Whoever is told of it has another written and that
// read soon, so it is not remembered for long.
type rot struct {
	mu    sync.Mutex // guards below
	first string     // the snapshot whose annex was found damaged first
	last  error      // for people: what was found last
	finds int
}

// found is told of a damaged annex. again: that of an earlier snapshot was damaged too.
func (r *rot) found(id string, err error) (again bool) {
	r.tell(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == "" {
		r.first = id
	}
	return r.first != id
}

// tell keeps damage of what is not in the annex: it says nothing of what the next snapshot will be linked from.
func (r *rot) tell(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = err
	r.finds++
}

// reading is called before a newest snapshot is read, and the function that it returns when that was read through and is whole.
func (r *rot) reading() (whole func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	finds := r.finds
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.finds == finds { // else another is damaged
			r.first, r.last = "", nil
		}
	}
}

// SnapshotDamage is the damage that was found in a newest snapshot, nil once a newest one was read through and is whole.
func (s *Store) SnapshotDamage() error {
	r := &s.snapshots.rot
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
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
