package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// MemorySnapshots keeps the newest snapshot in memory, for clusters in virtual time; one outlives its node and is given to the next
// start. Unlike raft's own in-memory store it shows a snapshot only when it was closed.
type MemorySnapshots struct {
	mu      sync.Mutex // guards below
	meta    *raft.SnapshotMeta
	content []byte
	created uint64
}

// NewMemorySnapshots returns an empty store.
func NewMemorySnapshots() *MemorySnapshots { return &MemorySnapshots{} }

// Create begins a snapshot.
func (m *MemorySnapshots) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created++
	return &memorySink{store: m, meta: raft.SnapshotMeta{
		Version:            v,
		ID:                 fmt.Sprintf("%d-%d-%d", term, index, m.created),
		Index:              index,
		Term:               term,
		Configuration:      conf.Clone(),
		ConfigurationIndex: confIndex,
	}}, nil
}

// List returns the newest snapshot.
func (m *MemorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meta == nil {
		return nil, nil
	}
	meta := *m.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open returns the content of the newest snapshot.
func (m *MemorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meta == nil || m.meta.ID != id {
		return nil, nil, fmt.Errorf("no snapshot %q", id)
	}
	meta := *m.meta
	return &meta, io.NopCloser(bytes.NewReader(m.content)), nil
}

type memorySink struct {
	store *MemorySnapshots
	meta  raft.SnapshotMeta
	buf   bytes.Buffer
	done  bool
}

var errSinkClosed = errors.New("snapshot is closed")

func (k *memorySink) ID() string { return k.meta.ID }

func (k *memorySink) Write(b []byte) (int, error) {
	if k.done {
		return 0, errSinkClosed
	}
	return k.buf.Write(b)
}

func (k *memorySink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	k.meta.Size = int64(k.buf.Len())
	m := k.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meta == nil || k.meta.Index >= m.meta.Index {
		m.meta, m.content = &k.meta, k.buf.Bytes()
	}
	return nil
}

func (k *memorySink) Cancel() error {
	k.done = true
	return nil
}
