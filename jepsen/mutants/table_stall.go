package mutants

// stalls are broken client libraries that show when a client's process is stopped. Some of
// them do nothing where something has to happen, which takes more than a minute to tell.
func stalls() []Mutant {
	return []Mutant{
		{
			Name: "client-loss-untold", Breaks: "a handler hears by its context that its lease is lost",
			Workload: "stall", Faults: []string{"none"}, By: []string{"untold"}, Slow: true,
			Edits: []Edit{
				{"client/handle.go",
					"			if d := l.open[n]; d != nil && !d.asking {\n",
					"			if d := l.open[n]; d != nil && !d.asking && d.phase != running {\n"},
				{"client/extend.go",
					"			if d == nil || d.verb != 0 && !d.chained || !contains(asked, n) {\n",
					"			if d == nil || d.verb != 0 && !d.chained || !contains(asked, n) || d.phase == running && st.State != wire.LeaseHeld {\n"},
				{"client/attach.go",
					"			if d == nil || !contains(asked, n) {\n",
					"			if d == nil || !contains(asked, n) || d.phase == running && d.verb == 0 && st.State != wire.LeaseHeld {\n"},
			},
		},
		{
			Name: "client-late-ack-ok", Breaks: "an ack whose lease had run out did not count",
			Workload: "stall", Faults: []string{"none"}, By: []string{"stale-ack", "untold", "linearizable"},
			Edits: []Edit{
				{"client/handle.go",
					"			if d := l.open[n]; d != nil && !d.asking {\n",
					"			if d := l.open[n]; d != nil && !d.asking && d.phase != running {\n"},
				{"client/extend.go",
					"			if d == nil || d.verb != 0 && !d.chained || !contains(asked, n) {\n",
					"			if d == nil || d.verb != 0 && !d.chained || !contains(asked, n) || d.phase == running && st.State != wire.LeaseHeld {\n"},
				{"client/settle.go",
					"		case settledAs(d.verb) == states[i].State:\n",
					"		case settledAs(d.verb) == states[i].State, states[i].State == wire.LeaseExpired:\n"},
			},
		},
		{
			Name: "client-gone-stays-away", Breaks: "a consumer that was given up begins anew by itself",
			Workload: "stall", Faults: []string{"none"}, By: []string{"asleep"}, Slow: true,
			Edits: []Edit{{"client/life.go",
				"	s.newLife()\n	s.later()\n",
				"	s.newLife()\n"}},
		},
		{
			Name: "client-begins-unlooked", Breaks: "after a stop no handler begins with what others have had meanwhile",
			Workload: "stall-long", Faults: []string{"none"}, By: []string{"zombie", "two-holders"}, Slow: true,
			Edits: []Edit{{"client/handle.go",
				"	return s.conn != nil && s.conn.mayBeOld(now) && since(d.sure, now) >= stoodLeast\n",
				"	return false\n"}},
		},
		{
			Name: "client-asks-late", Breaks: "who was stopped goes on soon with what it still holds, however long its lease is",
			Workload: "stall-long", Faults: []string{"none"}, By: []string{"asleep"}, Slow: true,
			Edits: []Edit{{"client/handle.go",
				"		if d != nil {\n			s.extend = true\n			s.kick()\n		}\n		s.resting++\n",
				"		s.resting++\n"}},
		},
	}
}
