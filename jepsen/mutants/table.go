package mutants

import "slices"

// All are all mutants.
func All() []Mutant {
	return slices.Concat(broad(), narrow(), failing(), disk(), outboxes(), stalls(), restores(), room(), altering())
}

// broad are those that plain traffic shows, or retransmission, or misbehaviour with
// leases.
func broad() []Mutant {
	return []Mutant{
		{
			Name: "dedup-not-in-snapshot", Breaks: "the outcomes of publishes are part of the snapshot",
			Workload: "dedup", Faults: []string{"restart-all", "kill"}, By: []string{"stored-twice"},
			Edits: []Edit{{"fsm/rows.go",
				"	w.Array(len(s.outcomes))\n	for _, seq := range s.sortedOutcomes() {\n",
				"	w.Array(0)\n	for _, seq := range s.sortedOutcomes()[:0] {\n"}},
		},
		{
			Name: "refusal-recorded", Breaks: "a refusal records nothing, so that a retry can succeed",
			Workload: "dedup", Faults: []string{"cut"}, By: []string{"linearizable"},
			Edits: []Edit{{"fsm/session.go",
				"	if st != StatusOK {\n		return PublishResult{Sequence: p.sequence, Status: st}\n",
				"	if st != StatusOK {\n		m.recordOutcome(s, p.sequence, outcome{sealed: true})\n		return PublishResult{Sequence: p.sequence, Status: st}\n"}},
		},
		{
			Name: "seal-ignored", Breaks: "a sealed sequence is never stored later",
			Workload: "dedup", Faults: []string{"lost-reply", "cut"}, By: []string{"phantom", "linearizable"},
			Edits: []Edit{{"fsm/session.go",
				"			o = outcome{sealed: true}\n			m.recordOutcome(s, seq, o)\n",
				"			o = outcome{sealed: true}\n"}},
		},
		{
			Name: "ack-without-lease", Breaks: "an ack counts only for who holds the message",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"stale-ack", "linearizable"},
			Edits: []Edit{{"fsm/lease.go",
				"	if s == nil || s.state != LeaseHeld {\n		return\n	}\n	switch it.verb {\n",
				"	if s != nil && it.verb == verbAck {\n		s.state = LeaseAcked\n	}\n	if s == nil || s.state != LeaseHeld {\n		return\n	}\n	switch it.verb {\n"}},
		},
		{
			Name: "commit-alone", Breaks: "a result is answered when a majority has the entry, not when one node has it",
			Workload: "queue", Faults: []string{"pause-kill"}, By: []string{"collision", "lost", "reordered"},
			Edits: []Edit{{"github.com/hashicorp/raft@/commitment.go",
				"	quorumMatchIndex := matched[(len(matched)-1)/2]\n",
				"	quorumMatchIndex := matched[len(matched)-1]\n"}},
		},
		{
			Name: "redeliver-on-failover", Breaks: "a new leader detaches consumers and takes nothing from them",
			Workload: "queue", Faults: []string{"kill", "transfer"}, By: []string{"no-cause", "two-holders"},
			Edits: []Edit{{"fsm/machine.go",
				"			m.detachConsumer(c)\n",
				"			m.detachConsumer(c)\n			c.graceEnd = m.now\n			m.retime(c)\n"}},
		},
		{
			Name: "dedup-before-propose", Breaks: "copies are judged in Apply, and only there",
			Workload: "dedup", Faults: []string{"cut"}, By: []string{"stored-twice"},
			Edits: []Edit{
				{"fsm/session.go",
					"	if o, ok := s.outcome(sequence); ok {\n		if !o.sealed &&",
					"	if o, ok := s.outcome(sequence); ok && o.sealed {\n		if !o.sealed &&"},
				{"cluster/handler.go",
					"	default:\n		g.proposer.submit(kind, payload, done)\n",
					`	case wire.OpPublish:
		if f, err := wire.DecodePublishFrame(payload); err == nil && len(f.Publishes) == 1 {
			g.reads.submit(read{
				do: func() {
					if r, _ := g.machine.Outcome(f.Incarnation, f.Session, f.Publishes[0].Sequence); r.Status == fsm.StatusOK {
						r.Duplicate = true
						c.Reply(corr, op, encoded(wire.PublishReply{Results: []wire.PublishResult{publishResult(r)}}))
						return
					}
					g.proposer.submit(kind, payload, done)
				},
				refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
			})
			return
		}
		g.proposer.submit(kind, payload, done)
	default:
		g.proposer.submit(kind, payload, done)
`},
			},
		},
		{
			Name: "floor-ignored", Breaks: "what is below the floor is refused for good",
			Workload: "dedup", Faults: []string{"cut"}, By: []string{"stored-twice", "linearizable"},
			Edits: []Edit{{"fsm/session.go",
				"	case sequence < s.floor:\n		return refuse(StatusBelowFloor)\n	case sequence-s.floor",
				"	case sequence >= s.floor && sequence-s.floor"}},
		},
		{
			Name: "unknown-is-refused", Breaks: "an entry whose fate is unknown is answered as unknown",
			Workload: "dedup", Faults: []string{"partition-one-way", "pause"}, By: []string{"phantom", "linearizable"}, Slow: true,
			Edits: []Edit{{"cluster/proposer.go",
				"		if p.cfg.classify(err) == raftlog.OutcomeNothingAppended {\n",
				"		if p.cfg.classify(err) == raftlog.OutcomeNothingAppended || true {\n"}},
		},
		{
			Name: "no-grace", Breaks: "a consumer whose connection ended keeps its leases for the grace time",
			Workload: "queue", Faults: []string{"cut"}, By: []string{"no-cause", "two-holders"},
			Edits: []Edit{{"fsm/consumer.go",
				"	c.graceEnd = m.now + Time(GraceTime)\n",
				"	c.graceEnd = m.now\n"}},
		},
		{
			Name: "attempt-not-counted", Breaks: "the attempt number is committed before each delivery",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"attempts"},
			Edits: []Edit{{"fsm/assign.go",
				"		msg.attempts++\n",
				"		msg.attempts = max(msg.attempts, 1)\n"}},
		},
		{
			Name: "wall-clock-in-apply", Breaks: "the machine knows no time but that of the log",
			Workload: "queue", Faults: []string{"cut"}, By: []string{"digest"},
			Edits: []Edit{
				{"fsm/machine.go", "	m.now = max(m.now, er.stamp)\n", "	m.now = max(m.now, er.stamp, Time(time.Now().UnixNano()))\n"},
				{"fsm/machine.go", "import (\n	\"fmt\"\n", "import (\n	\"fmt\"\n	\"time\"\n"},
			},
		},
		{
			Name: "leases-not-in-snapshot", Breaks: "what consumers hold is part of the snapshot",
			Workload: "queue", Faults: []string{"restart-all", "kill"}, By: []string{"no-cause", "two-holders", "wrong-lost", "digest"}, Slow: true,
			Edits: []Edit{{"fsm/rows.go",
				"	w.Array(len(c.slots))\n	for i := range c.slots {\n		s := &c.slots[i]\n",
				"	w.Array(len(c.slots))\n	for i := range c.slots {\n		s := &slot{state: LeaseAcked}\n		_ = i\n"}},
		},
		{
			Name: "ack-always-ok", Breaks: "an ack is answered with what became of the delivery",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"zombie", "stale-ack", "linearizable"},
			Edits: []Edit{{"fsm/lease.go",
				"		dst = c.eachState(dst, it.numberRange, func(number uint64) { m.settleOne(c, number, it) })\n",
				"		from := len(dst)\n		dst = c.eachState(dst, it.numberRange, func(number uint64) { m.settleOne(c, number, it) })\n		for j := from; j < len(dst); j++ {\n			if it.verb == verbAck && dst[j].State != LeaseUnknown {\n				dst[j].State = LeaseAcked\n			}\n		}\n"}},
		},
		{
			Name: "lease-expiry-forgets", Breaks: "a message whose lease ran out goes back to its queue",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"lost", "counts", "drain"},
			Edits: []Edit{{"fsm/lease.go",
				"			m.failed(c, s, LeaseExpired, EventExpired, \"\", 0, &counts.RedeliveredExpired)\n",
				"			m.drop(c, s, LeaseExpired)\n			counts.Leased--\n			counts.Acked++\n"}},
		},
		{
			Name: "pause-costs-leases", Breaks: "a pause of all nodes costs nobody's lease more than a second",
			Workload: "lease", Faults: []string{"pause-all"}, By: []string{"no-cause", "wrong-lost"}, Slow: true,
			Edits: []Edit{{"cluster/clock.go",
				"	if c.running && oldestWait <= clockStallMax && passed > 0 {\n		c.now += fsm.Time(min(passed, clockSampleMax))\n",
				"	if c.running && passed > 0 {\n		c.now += fsm.Time(passed)\n"}},
		},
		{
			Name: "delayed-not-in-snapshot", Breaks: "what was given back with a delay is part of the snapshot",
			Workload: "lease", Faults: []string{"restart-all"}, By: []string{"lost", "counts", "digest", "drain"}, Slow: true,
			Edits: []Edit{{"fsm/tablecopy.go",
				"	if !r.inTable() {\n		return least\n	}\n	c.w.Reset()\n",
				"	if !r.inTable() {\n		return least\n	}\n	if msg, ok := r.(*message); ok && msg.state == stateDelayed {\n		return least\n	}\n	c.w.Reset()\n"}},
		},
		{
			Name: "after-ignored", Breaks: "a copy waits for the one that was handed in before it",
			Workload: "order", Faults: []string{"refuse"}, By: []string{"reordered"},
			Edits: []Edit{{"fsm/session.go",
				"	if after != 0 && after >= s.floor && ",
				"	if after == ^uint64(0) && after >= s.floor && "}},
		},
		{
			Name: "seal-lets-pass", Breaks: "what comes after a sealed sequence does not overtake what comes before it",
			Workload: "order", Faults: []string{"refuse"}, By: []string{"reordered"},
			Edits: []Edit{{"fsm/session.go",
				"	return ok && (!o.sealed || m.version < versionSealedKeepsOrder)\n",
				"	return ok && (!o.sealed || m.version > 0)\n"}},
		},
		{
			Name: "too-old-early", Breaks: "a message is too old when its time to live is over, and not before",
			Workload: "expiry", Faults: []string{"cut"}, By: []string{"expired"},
			Edits: []Edit{{"fsm/message.go",
				"	return stored + Time(ttl)\n",
				"	return stored + Time(ttl)*3/4\n"}},
		},
		{
			Name: "too-old-stays", Breaks: "a message that is too old is handed to nobody",
			Workload: "expiry", Faults: []string{"cut"}, By: []string{"expired"},
			Edits: []Edit{{"fsm/queue.go",
				"stored: m.now, expires: q.expiry(m.now, a.ttl)}\n",
				"stored: m.now, expires: q.expiry(m.now, 0)}\n"}},
		},
		{
			Name: "too-old-uncounted", Breaks: "what is too old is counted",
			Workload: "expiry", Faults: []string{"cut"}, By: []string{"expired", "counts"},
			Edits: []Edit{{"fsm/queue.go",
				"		m.leaveQueue(msg, &q.counts.Expired, true)\n",
				"		m.leaveQueue(msg, &q.counts.Acked, true)\n"}},
		},
		{
			Name: "client-lost-is-unsent", Breaks: "a copy that may have arrived is not called unsent",
			Workload: "queue", Faults: []string{"lost-reply", "cut"}, By: []string{"phantom", "linearizable"},
			Edits: []Edit{{"client/frame.go",
				"	case errors.Is(err, errUnsent):\n",
				"	case errors.Is(err, errUnsent), errors.Is(err, errLost):\n"}},
		},
		{
			Name: "client-retries-anew", Breaks: "a retry keeps its sequence",
			Workload: "queue", Faults: []string{"lost-reply", "cut"}, By: []string{"stored-twice"},
			Edits: []Edit{{"client/frame.go",
				"		f.inFlight, f.written, f.unknown = false, true, true\n",
				"		f.inFlight, f.written, f.unknown = false, true, true\n		f.sequence = fr.p.next\n		fr.p.next++\n"}},
		},
		{
			Name: "client-forgets-order", Breaks: "a publish names the one before it that has no outcome",
			Workload: "order", Faults: []string{"refuse"}, By: []string{"reordered"},
			Edits: []Edit{{"client/frame.go",
				"			after = f.before.sequence\n",
				"			after = 0 * f.before.sequence\n"}},
		},
	}
}
