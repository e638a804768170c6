package fsm

// ackAndPublish acks an input and stores outputs, all in this command or not at
// all. It is judged by its sequence first: a retry that comes when the lease is
// long gone gets the recorded positions. It checks everything before it changes
// anything.
func (m *Machine) ackAndPublish(c *ackPublish, wall int64) (Status, PublishResult) {
	refuse := func(st Status) (Status, PublishResult) { return st, PublishResult{Sequence: c.sequence, Status: st} }
	s, st := m.findSession(c.incarnation, c.group, c.session, c.epoch)
	if st != StatusOK {
		return refuse(st)
	}
	if s.restored() {
		res := m.recall(s, c.sequence, c.checksum)
		return res.Status, res
	}
	m.raiseFloor(s, c.floor)
	s.lastActive = m.now
	m.dirty(s)
	if res, decided := m.judge(s, c.sequence, 0, c.checksum); decided {
		return res.Status, res
	}
	consumer := m.consumers[c.consumer]
	if consumer == nil {
		return refuse(StatusConsumerGone)
	}
	if m.resolve(consumer, c.number) {
		m.feed(consumer)
	}
	held := consumer.slot(c.number)
	if held == nil || held.state != LeaseHeld {
		return refuse(StatusLeaseLost)
	}
	if m.outcomeCap() {
		return refuse(StatusOutcomeCap)
	}
	// Check distinguishes no queue twice, so what fits one by one fits together.
	var total int
	for _, out := range c.outputs {
		as, st := m.prepare(m.queuesByName[string(out.queue)], out.messages)
		if st != StatusOK {
			return refuse(st)
		}
		for i := range as {
			if !as[i].plain() {
				total++
			}
		}
	}
	if total > 0 && !m.mayIndex(total) {
		return refuse(StatusIndexCap)
	}

	m.ack(consumer, held)
	o := outcome{checksum: c.checksum}
	for _, out := range c.outputs {
		q := m.queuesByName[string(out.queue)]
		as, _ := m.prepare(q, out.messages)
		first := m.store(q, as, out.messages, wall)
		o.positions = append(o.positions, Position{Queue: q.number, Lane: first.lane, Offset: first.offset, Count: uint32(len(out.messages))})
	}
	m.recordOutcome(s, c.sequence, o)
	m.raiseDone(consumer, c.done)
	m.dirty(consumer)
	m.feed(consumer)
	res := o.result(c.sequence, false)
	return res.Status, res
}
