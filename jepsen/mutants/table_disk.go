package mutants

// disk are those that only what nodes stand on shows: a disk that forgets or fails, a
// clock that is wrong, a network that changes what it carries.
func disk() []Mutant {
	return []Mutant{
		{
			Name: "fsync-skipped", Breaks: "what was confirmed is durable on a majority",
			Workload: "queue", Faults: []string{"power-loss-all"}, By: []string{"lost", "crash"}, Slow: true,
			Edits: []Edit{{"github.com/hashicorp/raft-wal@/segment/writer.go",
				"	if err := w.wf.Sync(); err != nil {\n		return err\n	}\n",
				""}},
		},
		{
			Name: "applied-before-durable", Breaks: "a leader answers for what a majority of disks has",
			Workload: "queue", Faults: []string{"part-kill"}, By: []string{"counts", "zombie", "stale-ack", "lost", "collision"}, Slow: true,
			Edits: []Edit{{"cluster/group.go",
				"	if err := g.store.Committed(l.Index); err != nil {\n",
				"	if err := g.store.Committed(0); err != nil {\n"}},
		},
		{
			Name: "store-errors-ignored", Breaks: "a node whose log could not be written ends at once",
			Workload: "queue", Faults: []string{"disk-error-needed"}, By: []string{"went-on", "lost"}, Slow: true,
			Edits: []Edit{{"cluster/raftlog/store.go",
				"		s.fatal(err)\n",
				""}},
		},
		{
			Name: "high-water-ignored", Breaks: "a node whose log ends before what it has acknowledged does not start",
			Workload: "queue", Faults: []string{"rollback"}, By: []string{"went-on", "lost"}, Slow: true,
			Edits: []Edit{{"cluster/raftlog/highwaterfile.go", "	case !k.existed: // a new log", "	case k.existed: // a new log"}},
		},
		{
			Name: "wall-clock-of-leader", Breaks: "the leader measures cluster time by its monotonic clock",
			Workload: "lease", Faults: []string{"clock-strobe"}, By: []string{"no-cause", "early", "wrong-lost"}, Slow: true,
			Edits: []Edit{{"cluster/clock.go",
				"	return func() time.Duration { return time.Since(start) }\n",
				"	return func() time.Duration { return time.Duration(time.Now().UnixNano() - start.UnixNano()) }\n"}},
		},
		{
			Name: "entry-checksum-unchecked", Breaks: "an entry of the log that is read is checked against its checksum",
			Workload: "queue", Faults: []string{"damage"}, By: []string{"went-on", "digest", "phantom"},
			Edits: []Edit{
				{"cluster/raftlog/checksum.go",
					"	if want != got {\n		return fmt.Errorf(\"%w: %08x recorded",
					"	if want != got && l.Index > 1<<62 {\n		return fmt.Errorf(\"%w: %08x recorded"},
			},
		},
		{
			Name: "peer-checksum-unchecked", Breaks: "what nodes send each other, and each entry, is checked against its checksum",
			Workload: "queue", Faults: []string{"packet-corrupt"}, By: []string{"digest", "phantom"}, Slow: true,
			Edits: []Edit{
				{"cluster/member/record.go",
					"	if _, want := recordSums(c.rnumber, length, payload); want != sum {\n",
					"	if _, want := recordSums(c.rnumber, length, payload); want != sum && c.rnumber > 1<<62 {\n"},
				{"cluster/raftlog/checksum.go",
					"	if want != got {\n		return fmt.Errorf(\"%w: %08x recorded",
					"	if want != got && l.Index > 1<<62 {\n		return fmt.Errorf(\"%w: %08x recorded"},
			},
		},
	}
}
