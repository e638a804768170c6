package mutants

// altering are those that change on its way what is to arrive as it was handed in.
func altering() []Mutant {
	return []Mutant{
		{
			Name: "dead-letter-bare", Breaks: "a dead letter has the headers that it was published with",
			Workload: "deadletter", Faults: []string{"none"}, By: []string{"altered"},
			Edits: []Edit{{"cluster/hub.go",
				"			x.PublishedAt, x.Message = at, message\n",
				"			if m, err := wire.DecodeMessage(message); err == nil && d.Dead != nil {\n				m.Headers = nil\n				message = encoded(m)\n			}\n			x.PublishedAt, x.Message = at, message\n"}},
		},
		{
			Name: "biz-id-cut", Breaks: "a biz-id arrives whole",
			Workload: "queue", Faults: []string{"none"}, By: []string{"altered"},
			Edits: []Edit{{"client/message.go",
				"		Body: m.Body, BizID: m.BizID, Headers: m.Headers,\n		OrderingKey",
				"		Body: m.Body, BizID: m.BizID[:min(64, len(m.BizID))], Headers: m.Headers,\n		OrderingKey"}},
		},
		{
			Name: "redelivered-bare", Breaks: "the second attempt brings the headers like the first",
			Workload: "queue", Faults: []string{"none"}, By: []string{"altered"},
			Edits: []Edit{{"cluster/hub.go",
				"			x.PublishedAt, x.Message = at, message\n",
				"			if m, err := wire.DecodeMessage(message); err == nil && d.Attempt > 1 && len(m.Headers) > 0 {\n				m.Headers = m.Headers[1:]\n				message = encoded(m)\n			}\n			x.PublishedAt, x.Message = at, message\n"}},
		},
	}
}
