package main

import (
	"context"
	"fmt"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/transport/wire"
)

type statusCmd struct{ outputFlag }

// Help says where the numbers come from.
func (*statusCmd) Help() string {
	return `Asks each node what it knows of itself: the numbers are local to the node and of
slightly different moments. APPEND is how long the newest appends to a node's log
took until they were on its disk: each publish waits for the leader's and for those of
the quickest followers, so a leader whose disk is slower than the others' is better
moved ("onceq cluster transfer"). Exit code 6 when no node leads, 8 when two nodes
disagree about the state at one index.

Examples:
  onceq status
  onceq status -o json | jq '.nodes[].applied'`
}

// nodeRow is what one node says of itself, or why it does not.
type nodeRow struct {
	Node     string  `json:"node"`
	Address  string  `json:"address"`
	Role     string  `json:"role"`
	Term     uint64  `json:"term"`
	Applied  uint64  `json:"applied"`
	Commit   uint64  `json:"commit"`
	LastLog  uint64  `json:"last_log"`
	Snapshot uint64  `json:"snapshot"`
	Messages uint64  `json:"messages"`
	Sessions uint64  `json:"sessions"`
	Digest   string  `json:"digest"`
	DigestAt uint64  `json:"digest_at"`
	Disk     string  `json:"disk,omitempty"` // ok, low or full
	Free     uint64  `json:"disk_free,omitempty"`
	Total    uint64  `json:"disk_total,omitempty"`
	Ballast  uint64  `json:"disk_ballast,omitempty"` // given up when the disk is full, for the snapshot that makes room
	Uptime   float64 `json:"uptime_seconds"`
	Version  string  `json:"version"`
	// Freeze is how long the newest snapshot has held up what is applied, FreezeMax
	// the longest since the node started. Transfers are snapshots on their way.
	Freeze    float64       `json:"freeze_ms"`
	FreezeMax float64       `json:"freeze_max_ms"`
	Transfers []transferRow `json:"transfers,omitempty"`
	// Stalled is how long, since the node started, what is applied has waited for
	// bodies to be written.
	Stalled float64 `json:"bodies_stalled_ms"`
	// AppendP50 and AppendP99 are of the newest appends to the node's log, until they
	// were durable.
	AppendP50 float64 `json:"append_p50_ms,omitempty"`
	AppendP99 float64 `json:"append_p99_ms,omitempty"`
	// Taken, Received and Compactions are counted since the node started.
	Taken       uint64 `json:"snapshots_taken"`
	Received    uint64 `json:"snapshots_received"`
	Compactions uint64 `json:"body_compactions"`
	// Damage is what was found damaged in the newest snapshot.
	Damage string `json:"snapshot_damage,omitempty"`

	Error string `json:"error,omitempty"`
}

// transferRow is a snapshot on its way to another node.
type transferRow struct {
	To    string `json:"to"`
	Index uint64 `json:"index"`
	Bytes uint64 `json:"bytes"`
	Size  uint64 `json:"size"`
}

// transfersOf lists what a node sends: who receives tells the same.
func transfersOf(all []wire.SnapshotTransfer) (rows []transferRow) {
	for _, t := range all {
		if !t.Receiving {
			rows = append(rows, transferRow{t.Peer, t.Index, t.Bytes, t.Size})
		}
	}
	return rows
}

// clusterStatus is what the nodes' words add up to.
type clusterStatus struct {
	Cluster string    `json:"cluster"`
	Leader  string    `json:"leader"`
	Term    uint64    `json:"term"`
	Up      int       `json:"up"`
	CanLose int       `json:"can_lose"`
	Voters  int       `json:"voters"`
	Commit  uint64    `json:"commit"`
	Nodes   []nodeRow `json:"nodes"`
}

// Run shows the cluster.
func (s *statusCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		reports, err := c.Admin().Nodes(ctx)
		if err != nil {
			return err
		}
		st := summarize(c.Cluster(), reports)
		if st.Leader != "" { // nobody else knows the members
			if m, err := c.Admin().Members(ctx); err == nil {
				st.count(m, reports)
			}
		}
		if s.table() {
			err = st.write(a)
		} else {
			err = console.WriteJSON(a.Out, s.format(), st)
		}
		if err != nil {
			return err
		}
		if a, b, ok := st.disagree(); ok {
			return &exit.Error{Code: exit.CheckFailed, Err: fmt.Errorf("%s and %s disagree about the state at index %d: digests %s and %s", a.Node, b.Node, a.DigestAt, a.Digest, b.Digest),
				Hint: "keep both data directories: one of the machines has computed something else from the same log"}
		}
		if st.Leader == "" {
			return exit.Errorf(exit.Unavailable, "no node leads: publishing and consuming wait")
		}
		return nil
	})
}

// summarize takes every answering node for a voter; count corrects that.
func summarize(cluster string, reports []client.NodeReport) clusterStatus {
	st := clusterStatus{Cluster: cluster, Voters: len(reports)}
	for _, r := range reports {
		row := nodeRow{Node: r.Node, Address: r.Address, Role: "unreachable"}
		if r.Err != nil {
			row.Error = r.Err.Error()
			st.Nodes = append(st.Nodes, row)
			continue
		}
		n := r.Status
		st.Up++
		st.Commit = max(st.Commit, n.CommitIndex)
		row = nodeRow{Node: n.Node, Address: r.Address, Role: n.Role, Term: n.Term, Applied: n.AppliedIndex, Commit: n.CommitIndex,
			LastLog: n.LastLogIndex, Snapshot: n.SnapshotIndex, Messages: n.Messages, Sessions: n.Sessions,
			Digest: fmt.Sprintf("%016x", n.Digest), DigestAt: n.DigestIndex, Disk: n.Disk, Free: n.DiskFree, Total: n.DiskTotal, Ballast: n.DiskBallast, Uptime: n.Uptime.Seconds(), Version: n.Version,
			Freeze: n.FreezeLast.Seconds() * 1000, FreezeMax: n.FreezeMax.Seconds() * 1000, Stalled: n.BodiesStalled.Seconds() * 1000,
			AppendP50: n.AppendP50.Seconds() * 1000, AppendP99: n.AppendP99.Seconds() * 1000,
			Taken: n.SnapshotsTaken, Received: n.SnapshotsReceived, Compactions: n.BodyCompactions, Damage: n.SnapshotDamage, Transfers: transfersOf(n.Transfers)}
		if n.Serving && n.Term >= st.Term {
			st.Leader, st.Term = n.Node, n.Term
		}
		st.Nodes = append(st.Nodes, row)
	}
	st.CanLose = canLose(st.Voters, st.Up)
	return st
}

// count takes the number of voters, and of those that answer, from the members.
func (st *clusterStatus) count(m client.Members, reports []client.NodeReport) {
	answers := map[string]bool{}
	for _, r := range reports {
		if r.Err == nil {
			answers[r.Node] = true
		}
	}
	voters, up := 0, 0
	for _, member := range m.Members {
		if !member.Voter {
			continue
		}
		voters++
		if answers[member.Node] {
			up++
		}
	}
	st.Voters, st.CanLose = voters, canLose(voters, up)
}

// disagree finds two nodes with different digests of one index.
func (st *clusterStatus) disagree() (a, b nodeRow, found bool) {
	at := map[uint64]nodeRow{}
	for _, n := range st.Nodes {
		if n.DigestAt == 0 {
			continue
		}
		if other, ok := at[n.DigestAt]; ok && other.Digest != n.Digest {
			return other, n, true
		}
		at[n.DigestAt] = n
	}
	return a, b, false
}

// canLose is how many more of the voters that are up may fail before no
// majority is left.
func canLose(voters, up int) int { return max(0, up-(voters/2+1)) }

func (st clusterStatus) write(a *app) error {
	short := st.Cluster[:min(8, len(st.Cluster))]
	leader := "none"
	if st.Leader != "" {
		leader = fmt.Sprintf("%s (term %d)", st.Leader, st.Term)
	}
	if _, err := fmt.Fprintf(a.Out, "cluster %s  %d/%d up, can lose %d  leader %s  commit %s\n",
		short, st.Up, len(st.Nodes), st.CanLose, leader, console.Count(st.Commit)); err != nil {
		return err
	}
	g := console.NewGrid("NODE", "ROLE", "ADDRESS", ">TERM", ">APPLIED", ">SNAPSHOT", ">MESSAGES", ">SESSIONS", "DIGEST@INDEX", "DISK", ">APPEND P50", ">P99", ">UPTIME", "VERSION")
	for _, n := range st.Nodes {
		if n.Error != "" {
			g.Row(n.Node, a.Paint(n.Role, console.Red), n.Address)
			continue
		}
		role := n.Role
		if n.Node == st.Leader {
			role = a.Paint(role, console.Bold)
		}
		digest := ""
		if n.DigestAt > 0 {
			digest = fmt.Sprintf("%s@%d", n.Digest[:8], n.DigestAt)
		}
		g.Row(n.Node, role, n.Address, n.Term, console.Count(n.Applied), console.Count(n.Snapshot), console.Count(n.Messages),
			console.Count(n.Sessions), digest, n.disk(a), took(n.AppendP50), took(n.AppendP99), uptime(n.Uptime), n.Version)
	}
	if _, err := g.WriteTo(a.Out); err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.Damage != "" {
			if _, err := fmt.Fprintln(a.Out, a.Paint(n.Node+" has a damaged snapshot: "+n.Damage, console.Red)); err != nil {
				return err
			}
		}
		for _, t := range n.Transfers {
			if _, err := fmt.Fprintf(a.Out, "%s sends %s a snapshot at %s: %s of %s\n", n.Node, t.To, console.Count(t.Index),
				console.Bytes(t.Bytes), console.Bytes(t.Size)); err != nil {
				return err
			}
		}
	}
	return nil
}

// took is a time in milliseconds, nothing where none was measured.
func took(ms float64) string {
	if ms == 0 {
		return ""
	}
	return millis(ms)
}

// disk is how much of a node's disk is free, and what is refused for it: low means
// publishes, full everything but what makes room.
func (n nodeRow) disk(a *app) string {
	if n.Total == 0 {
		return "" // in memory, or an older node
	}
	text := fmt.Sprintf("%s, %d%% free", n.Disk, n.Free*100/n.Total)
	if n.Ballast > 0 {
		text += ", ballast " + console.Bytes(n.Ballast)
	}
	if n.Disk != "ok" {
		text = a.Paint(text, console.Red)
	}
	return text
}
