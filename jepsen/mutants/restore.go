package mutants

// restores are those that only a restore and late copies show.
func restores() []Mutant {
	return []Mutant{
		{
			Name: "restored-session-open", Breaks: "a session from before a restore takes nothing new",
			Workload: "backup", Faults: []string{"kill"}, By: []string{"restored"}, Slow: true,
			Edits: []Edit{{"fsm/session.go",
				"	if s.restored() {\n		for _, p := range c.publishes {\n",
				"	if s.restored() && len(c.publishes) == 0 {\n		for _, p := range c.publishes {\n"}},
		},
		{
			Name: "restored-unmarked", Breaks: "what was stored before a restore is delivered with a mark",
			Workload: "backup", Faults: []string{"kill"}, By: []string{"restored"}, Slow: true,
			Edits: []Edit{{"fsm/rows.go",
				"			l.restoredBelow = l.tail\n",
				"			l.restoredBelow = 0 * l.tail\n"}},
		},
	}
}
