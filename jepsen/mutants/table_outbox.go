package mutants

// outboxes are broken outboxes, and what they need of the client.
func outboxes() []Mutant {
	return []Mutant{
		{
			Name: "outbox-new-sequences", Breaks: "after a crash an outbox sends its entries under the sequences that they had",
			Workload: "outbox", Faults: []string{"kill"}, By: []string{"stored-twice"},
			Edits: []Edit{{"client/outbox/write.go",
				"			err = b.again(f, c, n, id)\n",
				"			err = f.unsend(c, n)\n"}},
		},
		{
			Name: "outbox-floor-early", Breaks: "the floor passes an entry when its outcome is on the outbox's disk",
			Workload: "outbox", Faults: []string{"kill"}, By: []string{"lost", "refused"},
			Edits: []Edit{{"client/producer_send.go",
				"	if p.given != nil {\n		return p.given.floor\n	}\n",
				""}},
		},
		{
			Name: "outbox-forgets", Breaks: "an outbox keeps an entry until it is stored",
			Workload: "outbox", Faults: []string{"kill"}, By: []string{"lost"},
			Edits: []Edit{{"client/outbox/write.go",
				"errors.Join(f.sent.Put(k, sumID(e.id)), f.waiting.Delete(k))",
				"errors.Join(f.entries.Delete(k), f.waiting.Delete(k))"}},
		},
	}
}
