package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"onceq/cluster/member"
	"onceq/cluster/raftlog"
)

// What is in a data directory beside the identity: one directory a group, with
// its log and its snapshots.
const (
	groupsDir = "groups"
	logDir    = "log"
)

func groupDir(dataDir string) string {
	return filepath.Join(dataDir, groupsDir, strconv.Itoa(groupNumber))
}

// DirReport is what VerifyDir found.
type DirReport struct {
	Identity member.Identity
	Kind     string // of the log store
	Log      raftlog.Report
}

// VerifyDir reads everything in the data directory of a stopped node and
// compares it with what the node has acknowledged. What is wrong is in
// Log.Problems; an error means that it could not be read at all.
func VerifyDir(dataDir string) (DirReport, error) {
	d, err := member.PeekDir(dataDir)
	if err != nil {
		return DirReport{}, err
	}
	r := DirReport{Identity: d.Identity(), Kind: raftlog.KindWAL}
	dir := groupDir(dataDir)
	_, err = os.Stat(filepath.Join(dir, logDir))
	gone := errors.Is(err, fs.ErrNotExist)
	if gone && !r.Identity.Logged {
		return r, d.Close() // it has not come so far
	}
	if gone {
		r.Log.Problems = append(r.Log.Problems, fmt.Errorf("%w: there is no %s", raftlog.ErrLogLost, filepath.Join(dir, logDir)))
		return r, d.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, logDir, raftlog.BoltFile)); err == nil {
		r.Kind = raftlog.KindBolt
	}
	r.Log, err = raftlog.Verify(raftlog.Options{
		Dir: filepath.Join(dir, logDir), Kind: r.Kind, Owner: string(r.Identity.ServerID), Known: r.Identity.Logged, Annex: annex,
	}, dir)
	return r, errors.Join(err, d.Close())
}

// Wipe removes log, snapshots and bodies of a stopped node and gives it a new
// server id, under which it joins its cluster as a new member. The old member
// is removed by the cluster then. Until the new id is written the directory
// still says that there was a log under the old one, so a crash in between
// leaves a node that does not start, and Wipe may be called again.
func Wipe(dataDir string) error {
	d, err := member.PeekDir(dataDir)
	if err != nil {
		return err
	}
	err = wipe(d, dataDir)
	return errors.Join(err, d.Close())
}

func wipe(d *member.Dir, dataDir string) error {
	if id := d.Identity(); id.Stage != member.StageMember {
		return fmt.Errorf("node %s is %s: it belongs to no cluster yet, and there is nothing to wipe", id.Name, id.Stage)
	}
	// The mark first: without it a half emptied log is refused as well.
	for _, path := range []string{
		filepath.Join(groupDir(dataDir), logDir, raftlog.HighWaterFile),
		filepath.Join(dataDir, groupsDir),
	} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := syncDir(dataDir); err != nil {
		return err
	}
	return d.Renew()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
