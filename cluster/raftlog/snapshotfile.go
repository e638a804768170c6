package raftlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshotMetaFile is the description that raft's FileSnapshotStore keeps beside the state.
const snapshotMetaFile = "meta.json"

// snapshotStateFile is the stream.
const snapshotStateFile = "state.bin"

// snapshotSumFile holds the CRC32C of the description, big endian: a flipped bit there could move the snapshot to another index, or
// change who the members are. Behind it is the sum of the annex, if the snapshot has one. It is written once the snapshot is there, so
// after a crash in between there is none.
const snapshotSumFile = "meta.sum"

// readSnapshotMeta tells whether the description of a snapshot can be read, and is what it was, and of this snapshot.
func readSnapshotMeta(dir string) error {
	path := filepath.Join(dir, snapshotMetaFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var meta raft.SnapshotMeta
	if err := json.Unmarshal(b, &meta); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if at := snapshotNamed(filepath.Base(dir)); meta.Index != at.index || meta.Term != at.term {
		return fmt.Errorf("%s is of a snapshot at %d of term %d", path, meta.Index, meta.Term)
	}
	sum, err := os.ReadFile(filepath.Join(dir, snapshotSumFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(sum[:min(4, len(sum))], snapshotMetaSum(b)):
		return fmt.Errorf("%s: checksum mismatch", path)
	}
	return nil
}

// readAnnexSum reads the sum of a snapshot's annex; false when none was written.
func readAnnexSum(dir string) (sum uint32, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, snapshotSumFile))
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(b) == 4:
		return 0, false, nil
	case err != nil:
		return 0, false, err
	case len(b) != 8:
		return 0, false, fmt.Errorf("%w: %s has %d bytes", ErrSnapshotDamaged, filepath.Join(dir, snapshotSumFile), len(b))
	}
	return binary.BigEndian.Uint32(b[4:]), true, nil
}

func snapshotMetaSum(meta []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(meta, castagnoli))
}

// sumSnapshotMeta writes the checksum of a description that was just written, and the sum of the annex.
func sumSnapshotMeta(dir string, annex Annex) error {
	b, err := os.ReadFile(filepath.Join(dir, snapshotMetaFile))
	if err != nil {
		return err
	}
	sums := snapshotMetaSum(b)
	files, err := annex.of(dir) // there is no sum yet
	if err == nil && files != "" && annex.Sum != nil {
		var sum uint32
		sum, err = annex.Sum(files)
		sums = binary.BigEndian.AppendUint32(sums, sum)
	}
	if err != nil {
		return err
	}
	path := filepath.Join(dir, snapshotSumFile)
	temp := path + ".tmp" // a torn sum would look like damage
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(sums)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// snapshotNamed reads term and index out of a snapshot's name, TERM-INDEX-MILLISECONDS; another name is older than any.
func snapshotNamed(name string) (at snapshotID) {
	var milliseconds int64
	if n, err := fmt.Sscanf(name, "%d-%d-%d", &at.term, &at.index, &milliseconds); err != nil || n != 3 {
		return snapshotID{}
	}
	return at
}

// before says which of two snapshots raft takes for the older.
func (a snapshotID) before(b snapshotID) bool {
	return a.term < b.term || a.term == b.term && a.index < b.index
}
