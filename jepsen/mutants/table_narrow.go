package mutants

// narrow are those that only show under the traffic that one workload makes.
func narrow() []Mutant {
	return []Mutant{
		{
			Name: "version-raised-early", Breaks: "the machine's version is raised when every member knows the newer one",
			Workload: "queue", Faults: []string{"upgrade"}, By: []string{"crash"}, Slow: true,
			Edits: []Edit{{"cluster/version.go",
				"		if status.MachineSupports < lowest {\n",
				"		if status.MachineSupports < lowest && status.MachineSupports == 0 {\n"}},
		},
		{
			Name: "old-self-stays", Breaks: "a node that comes back empty takes the place of what it was",
			Workload: "members", Faults: []string{"wipe"}, By: []string{"members", "leaders", "stuck", "drain"}, Slow: true,
			Edits: []Edit{{"cluster/steward.go",
				"member.NameOf(old.ID) != p.Name && at != p.Address {\n",
				"member.NameOf(old.ID) != p.Name && at != p.Address || alive != nil {\n"}},
		},
		{
			Name: "floor-early", Breaks: "a producer's floor does not pass a sequence whose outcome it has not heard",
			Workload: "queue", Faults: []string{"lost-reply", "delay", "cut"}, By: []string{"refused", "lost"}, Slow: true,
			Edits: []Edit{{"client/frame.go",
				"Floor: p.floor(), Queue:",
				"Floor: max(p.floor(), append(fr.futures[:len(fr.futures):len(fr.futures)], &Future{})[0].sequence), Queue:"}},
		},
		{
			Name: "ack-repeat-lost", Breaks: "an ack that comes again is answered as the first",
			Workload: "lease", Faults: []string{"lost-reply"}, By: []string{"wrong-lost"},
			Edits: []Edit{{"fsm/lease.go",
				"	if s == nil || s.state != LeaseHeld {\n		return\n	}\n	switch it.verb {\n",
				"	if s != nil && s.state == LeaseAcked {\n		s.state = LeaseExpired\n	}\n	if s == nil || s.state != LeaseHeld {\n		return\n	}\n	switch it.verb {\n"}},
		},
		{
			Name: "key-not-held", Breaks: "the next message of an ordering key waits until the one before it is done",
			Workload: "order", Faults: []string{"cut"}, By: []string{"key-order"},
			Edits: []Edit{{"fsm/message.go",
				"	if msg.key != nil && msg.key.current != msg {\n		m.setState(msg, stateBlocked)\n",
				"	if msg.key != nil && msg.key.current != msg && m.now < 0 {\n		m.setState(msg, stateBlocked)\n"}},
		},
		{
			Name: "chain-acks-refused", Breaks: "an ack-and-publish that is refused has changed nothing",
			Workload: "chain", Faults: []string{"cut"}, By: []string{"torn"},
			Edits: []Edit{
				{"fsm/ackpublish.go", "	var total int\n", "	m.ack(consumer, held)\n	var total int\n"},
				{"fsm/ackpublish.go", "	m.ack(consumer, held)\n	o := outcome", "	o := outcome"},
			},
		},
		{
			Name: "chain-lease-first", Breaks: "an ack-and-publish is judged by its sequence before its lease",
			Workload: "chain", Faults: []string{"cut"}, By: []string{"torn", "refused"},
			Edits: []Edit{
				{"fsm/ackpublish.go",
					"	if res, decided := m.judge(s, c.sequence, 0, c.checksum); decided {\n		return res.Status, res\n	}\n	consumer :=",
					"	consumer :="},
				{"fsm/ackpublish.go",
					"		return refuse(StatusLeaseLost)\n	}\n",
					"		return refuse(StatusLeaseLost)\n	}\n	if res, decided := m.judge(s, c.sequence, 0, c.checksum); decided {\n		return res.Status, res\n	}\n"},
			},
		},
		{
			Name: "seal-over-stored", Breaks: "the seal of a sequence that is stored answers its result",
			Workload: "cancel", Faults: []string{"cut"}, By: []string{"phantom", "linearizable"},
			Edits: []Edit{{"fsm/session.go",
				"		case !recorded:\n			o = outcome{sealed: true}\n",
				"		case !recorded || !o.sealed:\n			m.dropOutcome(s, seq)\n			o = outcome{sealed: true}\n"}},
		},
		{
			Name: "client-never-without-seal", Breaks: "what is given up with a copy under way is sealed before it is called never stored",
			Workload: "cancel", Faults: []string{"cut"}, By: []string{"phantom", "linearizable"},
			Edits: []Edit{{"client/producer.go",
				"		p.tell(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Cause: cause})\n		p.seal(f)\n",
				"		p.tell(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Cause: cause})\n		p.never(f)\n"}},
		},
		{
			Name: "client-ack-guessed", Breaks: "an ack whose answer was lost is asked for again",
			Workload: "queue", Faults: []string{"hold"}, By: []string{"zombie"}, Slow: true,
			Edits: []Edit{{"client/settle.go",
				"			d.unsure = d.unsure || errors.Is(err, errLost)\n",
				"			d.unsure = d.unsure || errors.Is(err, errLost)\n			if errors.Is(err, errLost) {\n				s.resolve(d, nil)\n			}\n"}},
		},
		{
			Name: "resume-without-list", Breaks: "a consumer that attaches again is sent only what it has not listed",
			Workload: "resume", Faults: []string{"cut"}, By: []string{"resume"},
			Edits: []Edit{{"fsm/consumer.go", "s.state == LeaseHeld && !listed[number] {", "s.state == LeaseHeld {"}},
		},
		{
			Name: "resume-sends-nothing", Breaks: "a consumer that attaches again is sent what it holds and has not listed",
			Workload: "resume", Faults: []string{"cut"}, By: []string{"resume", "drain"},
			Edits: []Edit{{"fsm/consumer.go", "s.state == LeaseHeld && !listed[number] {", "s.state == LeaseHeld && !listed[number] && m.now < 0 {"}},
		},
		{
			Name: "detach-any", Breaks: "a detach counts only for the attachment that it was made for",
			Workload: "resume", Faults: []string{"refuse"}, By: []string{"no-cause", "two-holders"},
			Edits: []Edit{{"fsm/consumer.go", "	case c.n != d.n || !c.attached:\n", "	case !c.attached:\n"}},
		},
		{
			Name: "extend-ignored", Breaks: "a lease that was extended lasts longer",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"no-cause", "two-holders", "wrong-lost"},
			Edits: []Edit{{"fsm/lease.go", "		s.deadline = m.now + Time(d)\n", "		s.deadline = max(s.deadline, m.now-Time(d))\n"}},
		},
		{
			Name: "nack-delay-ignored", Breaks: "a message that was given back with a delay is kept back for so long",
			Workload: "delay", Faults: []string{"cut"}, By: []string{"early"},
			Edits: []Edit{{"fsm/message.go", "	case delay > 0:\n", "	case delay > 0 && m.now < 0:\n"}},
		},
		{
			Name: "priority-ignored", Breaks: "the highest priority goes first",
			Workload: "delay", Faults: []string{"cut"}, By: []string{"priority"},
			Edits: []Edit{{"fsm/lane.go", "	for i := len(q.lanes) - 1; i >= 0; i-- {\n		if l := q.lanes[i]; l != nil && (l.plain > 0", "	for i := range q.lanes {\n		if l := q.lanes[i]; l != nil && (l.plain > 0"}},
		},
		{
			Name: "purge-forgets-leases", Breaks: "a purge takes what is leased too",
			Workload: "admin", Faults: []string{"cut"}, By: []string{"undead", "crash"},
			Edits: []Edit{{"fsm/queue.go", "fresh.head, fresh.tail, fresh.purgedBelow = l.tail, l.tail, l.tail", "fresh.head, fresh.tail, fresh.purgedBelow = l.tail, l.tail, 0"}},
		},
		{
			Name: "pause-ignored", Breaks: "a paused queue hands nothing out",
			Workload: "admin", Faults: []string{"cut"}, By: []string{"undead"},
			Edits: []Edit{{"fsm/assign.go", "q.eligible > 0 && !q.paused && q.eater()", "q.eligible > 0 && q.eater()"}},
		},
		{
			Name: "map-order", Breaks: "nothing in Apply depends on the order of a map",
			Workload: "queue", Faults: []string{"cut"}, By: []string{"digest"},
			Edits: []Edit{{"fsm/assign.go",
				"	c := q.eater()\n",
				"	c := q.eater()\n	for _, any := range m.consumers {\n		if any.queue == q && any.hungry >= 0 {\n			c = any\n			break\n		}\n	}\n"}},
		},
		{
			Name: "checkpoint-without-flush", Breaks: "the bodies that a snapshot names are in its checkpoint",
			Workload: "delay", Faults: []string{"restart-all"}, By: []string{"lost", "phantom", "crash", "verify"}, Slow: true,
			Edits: []Edit{{"fsm/storage/checkpoint.go",
				"			flushed, err := db.AsyncFlush()\n",
				"			flushed, err := func() (chan struct{}, error) {\n				c := make(chan struct{})\n				close(c)\n				return c, nil\n			}()\n"}},
		},
	}
}

// failing are those that only messages show that fail, and consumers that ask, or
// have a queue to themselves.
func failing() []Mutant {
	return []Mutant{
		{
			Name: "limit-one-more", Breaks: "a message becomes a dead letter when its queue's limit of failed attempts is reached",
			Workload: "deadletter", Faults: []string{"cut"}, By: []string{"dead"},
			Edits: []Edit{{"fsm/lease.go", "	case limit > 0 && msg.failures >= limit:\n", "	case limit > 0 && msg.failures > limit:\n"}},
		},
		{
			Name: "failures-not-in-snapshot", Breaks: "how often a message has failed is part of the snapshot",
			Workload: "deadletter", Faults: []string{"restart-all"}, By: []string{"dead", "digest"}, Slow: true,
			Edits: []Edit{{"fsm/rows.go", "	w.Uint(uint64(msg.failures))\n", "	w.Uint(0 * uint64(msg.failures))\n"}},
		},
		{
			Name: "dead-letter-dropped", Breaks: "a dead letter is moved, not dropped",
			Workload: "deadletter", Faults: []string{"cut"}, By: []string{"lost", "dead"},
			Edits: []Edit{{"fsm/deadletter.go",
				"		m.moveTo(msg, target, reason, &q.counts.DeadLettered)\n",
				"		m.leaveQueue(msg, &q.counts.DeadLettered, true)\n"}},
		},
		{
			Name: "dead-letter-stays", Breaks: "what has become a dead letter has left its queue",
			Workload: "deadletter", Faults: []string{"cut"}, By: []string{"dead", "stored-twice"}, Slow: true,
			Edits: []Edit{{"fsm/lease.go", "		m.deadLetter(msg, \"rejected\")\n", "		m.comeBack(msg, delay)\n"}},
		},
		{
			Name: "full-graves-drop", Breaks: "a dead letter for which its queue has no room is parked, not dropped",
			Workload: "redrive", Faults: []string{"cut"}, By: []string{"lost", "dead", "counts"},
			Edits: []Edit{{"fsm/deadletter.go",
				"		m.park(msg, reason+\"; dead-letter queue \"+target.name+\" is full\")\n",
				"		m.leaveQueue(msg, &q.counts.DeadLettered, true)\n"}},
		},
		{
			Name: "redrive-forgets-attempts", Breaks: "the attempts of a message count on when it is sent back to work",
			Workload: "redrive", Faults: []string{"cut"}, By: []string{"attempts"},
			Edits: []Edit{{"fsm/deadletter.go", "		attempts: msg.attempts,\n		restored:", "		attempts: 0,\n		restored:"}},
		},
		{
			Name: "redrive-forgets-key", Breaks: "a dead letter that is sent back to work has its ordering key again, and waits for its turn",
			Workload: "redrive", Faults: []string{"cut"}, By: []string{"key-order"},
			Edits: []Edit{{"fsm/deadletter.go", "		m.rejoinKey(moved)\n", "		moved.notes.key = \"\"\n"}},
		},
		{
			Name: "requeue-forgets-key", Breaks: "what is parked and sent back to work has its ordering key again, and waits for its turn",
			Workload: "redrive", Faults: []string{"cut"}, By: []string{"key-order"},
			Edits: []Edit{{"fsm/edit.go", "		m.rejoinKey(msg)\n", "		msg.notes.key = \"\"\n"}},
		},
		{
			Name: "redrive-last-first", Breaks: "dead letters of one ordering key are sent back to work in the order in which they died",
			Workload: "redrive", Faults: []string{"cut"}, By: []string{"key-order"},
			Edits: []Edit{{"fsm/edit.go",
				"	for _, p := range c.places {\n		r.Edits = append(r.Edits, m.editOne(q, target, p, held[p.place], c.verb, eff))\n	}\n",
				"	r.Edits = r.Edits[:len(c.places)]\n	for i, p := range slices.Backward(c.places) {\n		r.Edits[i] = m.editOne(q, target, p, held[p.place], c.verb, eff)\n	}\n"}},
		},
		{
			Name: "retry-releases-key", Breaks: "what has failed holds its ordering key until it is given up, also while it is kept back",
			Workload: "deadletter", Faults: []string{"cut"}, By: []string{"key-order"},
			Edits: []Edit{{"fsm/message.go",
				"		msg.due = m.now + Time(delay)\n		m.setState(msg, stateDelayed)\n",
				"		msg.due = m.now + Time(delay)\n		m.setState(msg, stateDelayed)\n		if k := msg.key; k != nil && k.waiting != nil && msg.failures+1 == msg.q.settings.DeliveryLimit {\n			m.leaveKey(msg)\n			m.joinKey(msg.q, msg, k.key)\n		}\n"}},
		},
		{
			Name: "dead-letter-keeps-key", Breaks: "a dead letter is out of the way of what is behind it in its ordering key",
			Workload: "deadletter", Faults: []string{"cut"}, By: []string{"drain", "stuck"}, Slow: true,
			Edits: []Edit{{"fsm/deadletter.go",
				"	m.leaveQueue(msg, counter, false)\n",
				"	if reason != \"\" {\n		msg.key = nil\n	}\n	m.leaveQueue(msg, counter, false)\n"}},
		},
		{
			Name: "receive-repeat-stale", Breaks: "a receive that comes again gets what it holds",
			Workload: "pull", Faults: []string{"cut"}, By: []string{"no-cause", "drain", "stuck"}, Slow: true,
			Edits: []Edit{{"fsm/receive.go", "	p.c = c\n	if p.first", "	if p.first < c.next {\n		return StatusStale\n	}\n	p.c = c\n	if p.first"}},
		},
		{
			Name: "release-ignored", Breaks: "what was handed out to a receive that is given up goes back",
			Workload: "pull", Faults: []string{"cut"}, By: []string{"drain", "stuck", "no-cause"}, Slow: true,
			Edits: []Edit{{"fsm/receive.go", "			if s := c.slot(number); s.state == LeaseHeld {\n				m.unhandled(c, s)\n", "			if s := c.slot(number); s.state == LeaseHeld && m.now < 0 {\n				m.unhandled(c, s)\n"}},
		},
		{
			Name: "late-receive-leases", Breaks: "a late copy of a receive that was given up is handed nothing",
			Workload: "pull", Faults: []string{"cut"}, By: []string{"no-cause", "drain", "stuck"}, Slow: true,
			Edits: []Edit{{"fsm/receive.go", "	if p.first == c.next && c.want == 0 {\n", "	if c.want == 0 {\n"}},
		},
		{
			Name: "single-active-ignored", Breaks: "a queue with a single active consumer has one",
			Workload: "order", Faults: []string{"cut"}, By: []string{"single"},
			Edits: []Edit{{"fsm/consumer.go", "	case !q.settings.SingleActive:\n		return q.hungry[0]", "	case !q.settings.SingleActive || q.number > 0:\n		return q.hungry[0]"}},
		},
		{
			Name: "resume-renews-nothing", Breaks: "who attaches again holds what it held for a whole lease time more",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"no-cause", "wrong-lost"},
			Edits: []Edit{{"fsm/consumer.go", "		c.resumeBase = m.now + Time(q.settings.LeaseTime)\n", "		c.resumeBase = m.now\n"}},
		},
		{
			Name: "body-not-compared", Breaks: "another body under a sequence that is stored is refused",
			Workload: "dedup", Faults: []string{"cut"}, By: []string{"linearizable", "phantom"},
			Edits: []Edit{{"fsm/session.go", "		if !o.sealed && o.checksum != checksum {\n			return refuse(StatusBodyDiffers)\n", "		if !o.sealed && o.checksum != checksum && m.now < 0 {\n			return refuse(StatusBodyDiffers)\n"}},
		},
		{
			Name: "queue-number-again", Breaks: "the number of a queue is never given out again",
			Workload: "admin", Faults: []string{"cut"}, By: []string{"undead", "phantom", "collision"}, Slow: true,
			Edits: []Edit{{"fsm/queue.go", "		m.nextQueue++\n		q = newQueue(m.nextQueue, c.name, want)\n",
				"		number := uint64(1)\n		for m.queues[number] != nil {\n			number++\n		}\n		m.nextQueue = max(m.nextQueue, number)\n		q = newQueue(number, c.name, want)\n"}},
		},
		{
			Name: "look-unverified", Breaks: "a look-up is answered by a node of which a majority confirms that it leads",
			Workload: "dedup", Faults: []string{"pause"}, By: []string{"stale-look"}, Slow: true,
			Edits: []Edit{{"cluster/reads.go", "	if !r.asks.leads(term, end) {\n		return r.g.refusal()\n	}\n", ""}},
		},
		{
			Name: "batch-torn", Breaks: "the messages of one publish are stored together or not at all",
			Workload: "dedup", Faults: []string{"cut"}, By: []string{"lost", "torn", "linearizable"},
			Edits: []Edit{{"fsm/queue.go", "	for i, b := range messages {\n		p := place{l.number, l.tail}\n", "	for i, b := range messages {\n		if i == 1 && len(messages) > 2 {\n			continue\n		}\n		p := place{l.number, l.tail}\n"}},
		},
		{
			Name: "epoch-ignored", Breaks: "an owner of a named session that was replaced stores nothing more",
			Workload: "fence", Faults: []string{"cut"}, By: []string{"fenced"},
			Edits: []Edit{{"fsm/session.go", "	case epoch < s.epoch:\n		return StatusFenced\n", "	case epoch < s.epoch && epoch == 0:\n		return StatusFenced\n"}},
		},
		{
			Name: "open-steals", Breaks: "who opens a named session names the epoch that it knows, so a late copy takes nothing",
			Workload: "fence", Faults: []string{"cut"}, By: []string{"fenced"},
			Edits: []Edit{{"fsm/session.go", "	case s.epoch != c.expected:\n		return StatusEpochMismatch, SessionResult{Number: s.number, Epoch: s.epoch}\n", ""}},
		},
		{
			Name: "credit-ignored", Breaks: "a consumer is handed no more than it has said that it takes",
			Workload: "lease", Faults: []string{"cut"}, By: []string{"credit"},
			Edits: []Edit{{"fsm/consumer.go", "c.attached && c.held < int(c.credit) && ", "c.attached && c.held < 2*int(c.credit) && "}},
		},
		{
			Name: "frame-checksum-unchecked", Breaks: "what clients and nodes send each other is checked against its checksum",
			// A flipped bit may be anywhere, in a body, in a number, in an answer.
			Workload: "dedup", Faults: []string{"garble"}, By: []string{"phantom", "stored-twice", "refused", "wrong-lost", "linearizable"}, Slow: true,
			Edits: []Edit{{"transport/wire/frame.go",
				"binary.BigEndian.Uint32(f.header[4:]); sum != want {\n",
				"binary.BigEndian.Uint32(f.header[4:]); sum != want && length == 0 {\n"}},
		},
	}
}
