package raftlog

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshotMetaFile is the description that raft's FileSnapshotStore keeps beside the state.
const snapshotMetaFile = "meta.json"

// readSnapshotMeta tells whether the description of a snapshot can be read.
func readSnapshotMeta(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, snapshotMetaFile))
	if err != nil {
		return err
	}
	var meta raft.SnapshotMeta
	return json.Unmarshal(b, &meta)
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
