package mutants

// room are those that only what nodes keep shows, and whether they come back with it.
func room() []Mutant {
	return []Mutant{
		{
			Name: "acked-body-stays", Breaks: "the body of a message that is acked is freed",
			Workload: "queue", Faults: []string{"cut"}, By: []string{"bounded"},
			Edits: []Edit{{"fsm/lease.go", "	m.bodies.Delete(q.number, s.place.lane, s.place.offset)\n	m.dirty(q)\n", "	m.dirty(q)\n"}},
		},
		{
			Name: "log-not-cut", Breaks: "the log is cut behind a snapshot",
			Workload: "queue", Faults: []string{"cut"}, By: []string{"bounded"},
			Edits: []Edit{{"cluster/snapshotter.go", "	c.TrailingLogs = s.trailing(applied, last)\n", "	c.TrailingLogs = max(s.trailing(applied, last), 1<<40)\n"}},
		},
		{
			Name: "half-snapshot-stays", Breaks: "a start removes what a crash has left of a snapshot that was being written",
			Workload: "queue", Faults: []string{"kill"}, By: []string{"bounded"}, Slow: true,
			Edits: []Edit{{"cluster/raftlog/snapshots.go",
				"		if e.IsDir() && strings.HasSuffix(e.Name(), fileSnapshotTemp) {\n",
				"		if strings.HasSuffix(e.Name(), \"/\"+fileSnapshotTemp) {\n"}},
		},
		{
			Name: "snapshot-not-installed", Breaks: "a node that lacks more than the log of the others goes back to is sent a snapshot",
			Workload: "queue", Faults: []string{"lag"}, By: []string{"rejoined", "drain"}, Slow: true,
			Edits: []Edit{{"cluster/raftlog/guard.go",
				"	if !ok {\n		return true\n	}\n	err := checkAppend(req)\n",
				"	if _, install := rpc.Command.(*raft.InstallSnapshotRequest); install {\n		rpc.Respond(&raft.InstallSnapshotResponse{}, ErrBadAppend)\n		return false\n	}\n	if !ok {\n		return true\n	}\n	err := checkAppend(req)\n"}},
		},
	}
}
