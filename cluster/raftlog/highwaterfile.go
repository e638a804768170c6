package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// The high-water file is one block with two slots, which are written in turn: a write that is torn leaves the other one whole.
//
//	slot: magic "onceqhw1" | sequence u64 | index u64 | term u64 | snapshot u64 | current term u64 | vote term u64 | clean u8 |
//	      CRC32C u32 over the owner and all before it                                                     (all big endian)
//
// The owner, the node's server id, is part of the checksum only: the file of another node does not fit.
const (
	HighWaterFile  = "highwater" // in the directory of a Store
	highWaterMagic = "onceqhw1"
	markBlockBytes = 4096
	markSlotBytes  = markBlockBytes / 2
	markBytes      = 8 + 6*8 + 1
)

var errMarkDamaged = errors.New("the high-water file is damaged or belongs to another node")

// markFile is the high-water file, open.
type markFile struct {
	path     string
	owner    string
	f        *os.File
	sync     func() error
	found    HighWater
	existed  bool
	known    bool
	sequence uint64
}

// openMark opens the file, or makes it when there is none and the node has not had a log before. A missing one is told by compare.
func openMark(dir, owner string, known bool) (*markFile, error) {
	k := &markFile{path: filepath.Join(dir, HighWaterFile), owner: owner, known: known}
	f, err := os.OpenFile(k.path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist) && known:
		return k, nil
	case errors.Is(err, os.ErrNotExist):
		if f, err = k.create(dir); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		k.existed = true
		if err := k.read(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	k.f = f
	k.sync = func() error { return syncData(f) }
	return k, nil
}

// create makes the whole block, so that later writes change data alone and an fsync of them writes nothing else. The first slot holds
// a mark of nothing, the second none.
func (k *markFile) create(dir string) (*os.File, error) {
	temp := k.path + ".tmp"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	block := make([]byte, markBlockBytes)
	copy(block, k.encode(HighWater{}))
	_, err = f.WriteAt(block, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, k.path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (k *markFile) read(f *os.File) error {
	block := make([]byte, markBlockBytes)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, markBlockBytes), block); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return err
	}
	ok := false
	for at := 0; at < markBlockBytes; at += markSlotBytes {
		m, sequence, valid := k.decode(block[at:])
		if valid && (!ok || sequence > k.sequence) {
			k.found, k.sequence, ok = m, sequence, true
		}
	}
	if !ok {
		return fmt.Errorf("%s: %w: %w; %s", k.path, ErrLogLost, errMarkDamaged, wipeHint)
	}
	return nil
}

// write replaces the older slot.
func (k *markFile) write(m HighWater) error {
	k.sequence++
	at := int64(k.sequence%2) * markSlotBytes
	if _, err := k.f.WriteAt(k.encode(m), at); err != nil {
		return err
	}
	return k.sync()
}

func (k *markFile) close() error {
	if k.f == nil {
		return nil
	}
	return k.f.Close()
}

func (k *markFile) encode(m HighWater) []byte {
	b := make([]byte, 0, markBytes+4)
	b = append(b, highWaterMagic...)
	for _, v := range []uint64{k.sequence, m.Index, m.Term, m.Snapshot, m.CurrentTerm, m.VoteTerm} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	clean := byte(0)
	if m.Clean {
		clean = 1
	}
	b = append(b, clean)
	return binary.BigEndian.AppendUint32(b, k.sum(b))
}

func (k *markFile) decode(b []byte) (m HighWater, sequence uint64, valid bool) {
	if string(b[:8]) != highWaterMagic || binary.BigEndian.Uint32(b[markBytes:]) != k.sum(b[:markBytes]) {
		return HighWater{}, 0, false
	}
	for i, p := range []*uint64{&sequence, &m.Index, &m.Term, &m.Snapshot, &m.CurrentTerm, &m.VoteTerm} {
		*p = binary.BigEndian.Uint64(b[8+8*i:])
	}
	m.Clean = b[markBytes-1] == 1
	return m, sequence, true
}

func (k *markFile) sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(k.owner), castagnoli), castagnoli, b)
}

// compare tells what of the mark that was found is missing now.
func (k *markFile) compare(now HighWater, s *Store) error {
	m := k.found
	switch {
	case !k.existed && k.known:
		return fmt.Errorf("there is no %s, although this node has had a log here", k.path)
	case !k.existed: // a new log, or one from before there was such a file
		return nil
	case now.Index < m.Index:
		return fmt.Errorf("log and snapshot end at %d, entry %d of term %d was acknowledged", now.Index, m.Index, m.Term)
	case now.Snapshot < m.Snapshot:
		return fmt.Errorf("the newest snapshot is at %d, there was one at %d", now.Snapshot, m.Snapshot)
	case now.CurrentTerm < m.CurrentTerm || now.VoteTerm < m.VoteTerm:
		return fmt.Errorf("the stable store says term %d and a vote in term %d, it has said %d and %d", now.CurrentTerm, now.VoteTerm, m.CurrentTerm, m.VoteTerm)
	}
	if clean := (HighWater{now.Index, now.Term, now.Snapshot, now.CurrentTerm, now.VoteTerm, true}); m.Clean && m != clean {
		return fmt.Errorf("the node stopped in order with its log ending at %d of term %d, snapshot %d, term %d, vote in %d, and now has %d of %d, %d, %d, %d",
			m.Index, m.Term, m.Snapshot, m.CurrentTerm, m.VoteTerm, now.Index, now.Term, now.Snapshot, now.CurrentTerm, now.VoteTerm)
	}
	if m.Index == 0 || m.Index < now.Snapshot {
		return nil
	}
	term, err := s.termAt(m.Index)
	if err == nil && term != m.Term {
		err = fmt.Errorf("entry %d is of term %d (0: it is missing), acknowledged was one of term %d", m.Index, term, m.Term)
	}
	return err
}
