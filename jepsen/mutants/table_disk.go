package mutants

// disk are those that only a disk shows: one that forgets, fails or changes what
// it was given.
func disk() []Mutant {
	return []Mutant{
		{
			Name: "fsync-skipped", Breaks: "what was confirmed is durable on a majority",
			Workload: "queue", Faults: []string{"power-loss-all"},
			Edits: []Edit{{"github.com/hashicorp/raft-wal@/segment/writer.go",
				"	if err := w.wf.Sync(); err != nil {\n		return err\n	}\n",
				""}},
		},
		{
			Name: "store-errors-ignored", Breaks: "a node whose log could not be written ends at once",
			Workload: "queue", Faults: []string{"disk-error"},
			Edits: []Edit{{"cluster/raftlog/store.go",
				"		s.fatal(err)\n",
				""}},
		},
	}
}
