package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"onceq/cluster"
	"onceq/cluster/member"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type nodeCmd struct {
	Verify nodeVerifyCmd `cmd:"" help:"Read everything in a stopped node's data directory and say what is damaged."`
	Wipe   nodeWipeCmd   `cmd:"" help:"Empty a stopped node's data directory, so that it joins again as a new member."`
}

// Help says when these are needed.
func (*nodeCmd) Help() string {
	return `For a node that does not start because its data is damaged or incomplete. The
node has to be stopped. Verify changes nothing. Wipe gives up what this node has:
that is safe as long as a majority of the others is well, since they have it all.

Examples:
  onceq node verify /var/lib/onceq
  onceq node wipe /var/lib/onceq --dry-run
  onceq node wipe /var/lib/onceq`
}

type nodeVerifyCmd struct {
	outputFlag
	Dir string `arg:"" help:"Data directory of the node." type:"path"`
}

// nodeReport is what verify shows.
type nodeReport struct {
	Node          string   `json:"node"`
	ServerID      string   `json:"server_id"`
	Cluster       string   `json:"cluster"`
	LogStore      string   `json:"log_store"`
	FirstIndex    uint64   `json:"first_index"`
	LastIndex     uint64   `json:"last_index"`
	Entries       int      `json:"entries"`
	SnapshotIndex uint64   `json:"snapshot_index"`
	SnapshotBytes int64    `json:"snapshot_bytes"`
	BodyBytes     int64    `json:"body_bytes"`
	Acknowledged  uint64   `json:"acknowledged_index"`
	CleanStop     bool     `json:"clean_stop"`
	Problems      []string `json:"problems"`
}

// Run reads the directory. Problems are exit code 8.
func (v *nodeVerifyCmd) Run(a *app) error {
	found, err := cluster.VerifyDir(v.Dir)
	if err != nil {
		return dirError(v.Dir, err)
	}
	r := nodeReport{
		Node: found.Identity.Name, ServerID: string(found.Identity.ServerID), Cluster: found.Identity.Cluster.ID, LogStore: found.Kind,
		FirstIndex: found.Log.First, LastIndex: found.Log.Last, Entries: found.Log.Entries,
		SnapshotIndex: found.Log.Snapshot, SnapshotBytes: found.Log.Bytes, BodyBytes: found.Log.AnnexBytes,
		Acknowledged: found.Log.Acknowledged.Index, CleanStop: found.Log.Acknowledged.Clean,
		Problems: []string{},
	}
	for _, p := range found.Log.Problems {
		r.Problems = append(r.Problems, p.Error())
	}
	if err := v.show(a, r); err != nil {
		return err
	}
	if len(r.Problems) > 0 {
		return &exit.Error{Code: exit.CheckFailed, Err: fmt.Errorf("node %s: %d problems in %s", r.Node, len(r.Problems), v.Dir),
			Hint: "if a majority of the other nodes is well:  onceq node wipe " + v.Dir + "  and start it again"}
	}
	a.Note("node %s: no problems", r.Node)
	return nil
}

func (v *nodeVerifyCmd) show(a *app, r nodeReport) error {
	if !v.table() {
		return console.WriteJSON(a.Out, v.format(), r)
	}
	stop := "no: it crashed or was killed"
	if r.CleanStop {
		stop = "yes"
	}
	grid := console.NewGrid("WHAT", "VALUE")
	grid.Row("node", r.Node)
	grid.Row("server id", r.ServerID)
	grid.Row("cluster", r.Cluster)
	grid.Row("log", fmt.Sprintf("%s, %d to %d, %d entries whole", r.LogStore, r.FirstIndex, r.LastIndex, r.Entries))
	grid.Row("newest snapshot", fmt.Sprintf("at %d, %d bytes, and %d of message bodies", r.SnapshotIndex, r.SnapshotBytes, r.BodyBytes))
	grid.Row("acknowledged", fmt.Sprint(r.Acknowledged))
	grid.Row("stopped in order", stop)
	for _, p := range r.Problems {
		grid.Row(a.Paint("problem", console.Red), p)
	}
	_, err := grid.WriteTo(a.Out)
	return err
}

type nodeWipeCmd struct {
	destructive
	Dir string `arg:"" help:"Data directory of the node." type:"path"`
}

// Run asks and wipes.
func (w *nodeWipeCmd) Run(a *app) error {
	d, err := member.PeekDir(w.Dir)
	if err != nil {
		return dirError(w.Dir, err)
	}
	id := d.Identity()
	if err := d.Close(); err != nil {
		return err
	}
	what := fmt.Sprintf("remove log, snapshots and messages of node %s (%s, cluster %s) from %s and give it a new server id; "+
		"the others must have a majority without it", id.Name, id.ServerID, id.Cluster.ID, w.Dir)
	if on, err := w.confirm(a, what); !on {
		return err
	}
	if err := cluster.Wipe(w.Dir); err != nil {
		return dirError(w.Dir, err)
	}
	a.Note("node %s is empty. Start it as before: it joins cluster %s as a new member, and its old self is removed.", id.Name, id.Cluster.ID)
	return nil
}

// withoutIdentity is what to do when the identity file is lost or damaged.
const withoutIdentity = "restore the identity file from a copy; or remove the whole directory and start the node with --join and without --bootstrap-expect"

// dirError adds to why a directory cannot be used what to do about it.
func dirError(dir string, err error) error {
	switch {
	case errors.Is(err, member.ErrNoIdentity):
		return &exit.Error{Code: exit.CheckFailed, Err: fmt.Errorf("%s has lost its identity file, which says whose log and messages it has", dir),
			Hint: withoutIdentity}
	case errors.Is(err, syscall.ENOTDIR):
		return &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("%s is a file, and no data directory of a node", dir), Hint: "name the directory that 'onceq server' has as --data-dir"}
	case errors.Is(err, fs.ErrNotExist):
		return &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("%s is no data directory of a node: %w", dir, err), Hint: "name the directory that 'onceq server' has as --data-dir"}
	case errors.Is(err, member.ErrDirLocked):
		return &exit.Error{Code: exit.Conflict, Err: err, Hint: "stop the node first"}
	case errors.Is(err, member.ErrIdentityDamaged):
		return &exit.Error{Code: exit.CheckFailed, Err: fmt.Errorf("%s: %w", dir, err),
			Hint: withoutIdentity}
	}
	return err
}
