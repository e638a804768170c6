package raftlog

import (
	"encoding/json"
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
