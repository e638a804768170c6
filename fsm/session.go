package fsm

import (
	"cmp"
	"slices"
)

// session is a producer's dedup identity. It belongs to one producer in one
// group; its number is never reused.
//
// Invariant: outcomes holds sequences in [floor, floor+SessionWindow) only.
type session struct {
	record
	number uint64
	// incarnation is that of the life it was opened in, before a restore: it is
	// closed for good and only answers from its records. 0: the present one.
	incarnation uint64
	named       bool
	name        string // the nonce's bytes when unnamed
	label       string
	epoch       uint64
	nonce       Nonce // of the open that made the present epoch
	floor       uint64
	// highest is the highest sequence that ever had a record: what is above is not looked up.
	highest    uint64
	outcomes   map[uint64]outcome
	bytes      int // of itself and its outcomes, as counted against Limits.SessionBytesMax
	lastActive Time
	timer      timer
}

func (o *outcome) bytes() int { return OutcomeBytes + PositionBytes*len(o.positions) }

// outcome looks a record up. Most copies are the first of their sequence, above all
// that has a record: for those the table, of which little is in any cache, is left alone.
func (s *session) outcome(sequence uint64) (o outcome, ok bool) {
	if sequence > s.highest {
		return outcome{}, false
	}
	o, ok = s.outcomes[sequence]
	return o, ok
}

// count adds to what the session, and all of them, need.
func (m *Machine) count(s *session, bytes int) {
	s.bytes += bytes
	m.sessionBytes += int64(bytes)
}

// outcome is the record of one sequence at or above the floor. A publish has
// one position, which stands in it; an ack-and-publish has as many as it has
// output queues.
type outcome struct {
	sealed    bool
	checksum  uint64
	queue     uint64
	lane      uint8
	offset    uint64
	count     uint32
	positions []Position
}

// sessionKey keeps named and unnamed sessions in one table without letting a
// name meet a nonce.
type sessionKey struct {
	named bool
	name  string
}

func (s *session) key() sessionKey { return sessionKey{s.named, s.name} }

func (o outcome) result(sequence uint64, duplicate bool) PublishResult {
	if o.sealed {
		return PublishResult{Sequence: sequence, Status: StatusSealed}
	}
	return PublishResult{
		Sequence: sequence, Status: StatusOK, Duplicate: duplicate,
		Queue: o.queue, Lane: o.lane, Offset: o.offset, Count: o.count, Outputs: o.positions,
	}
}

func (s *session) result() SessionResult {
	return SessionResult{
		Number: s.number, Epoch: s.epoch, Floor: s.floor,
		Next: max(s.floor, s.highest+1), Expiry: SessionExpiry,
	}
}

// openSession opens a session, or raises the epoch of a named one. Who asks
// names the epoch it expects, so a late copy of an older open has no effect.
func (m *Machine) openSession(c openSession) (Status, SessionResult) {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st, SessionResult{}
	}
	key := sessionKey{c.named, c.name}
	if !c.named {
		key.name = string(c.nonce[:])
	}
	s := m.sessionsByKey.rows[key]
	switch {
	case s == nil && c.expected != 0:
		return StatusEpochMismatch, SessionResult{}
	case s == nil && (len(m.sessions.rows) >= m.limits.SessionsMax || m.sessionBytes >= m.limits.SessionBytesMax):
		return StatusSessionCap, SessionResult{}
	case s == nil:
		m.nextSession++
		s = &session{
			number: m.nextSession, named: c.named, name: key.name, label: c.label,
			epoch: m.takeEpoch(c.named), nonce: c.nonce, floor: 1, outcomes: map[uint64]outcome{},
		}
		m.addSession(s)
		s.timer = timer{kind: timerSession, id: s.number, pos: -1}
		if !s.named {
			m.timers.set(&s.timer, m.now+Time(SessionExpiry))
		}
	case s.nonce == c.nonce: // a repeat
	case s.epoch != c.expected:
		return StatusEpochMismatch, SessionResult{Number: s.number, Epoch: s.epoch}
	default:
		s.epoch = m.takeEpoch(true)
		s.nonce = c.nonce
		m.count(s, len(c.label)-len(s.label))
		s.label = c.label
	}
	s.lastActive = m.now
	m.dirty(s)
	r := s.result()
	r.Incarnation = m.incarnation
	return StatusOK, r
}

// takeEpoch returns an epoch that no named session has had: a name that was
// closed and opened again must not meet the epochs of its former life, or a late
// copy of an open from then would take the session from its owner. The name of
// an unnamed session is used once.
func (m *Machine) takeEpoch(named bool) uint64 {
	if !named {
		return 1
	}
	m.lastEpoch++
	return m.lastEpoch
}

func (m *Machine) addSession(s *session) {
	m.sessions.rows[s.number] = s
	m.sessionsByNumber.ReplaceOrInsert(s)
	m.count(s, SessionBytes+len(s.name)+len(s.label))
	if !s.restored() {
		m.sessionsByKey.rows[s.key()] = s // a closed one has no claim to its name
	}
}

// closeSession ends a session by command. A repeat finds none and is fine.
func (m *Machine) closeSession(c closeSession) Status {
	s, st := m.findSession(c.incarnation, c.group, c.session, c.epoch)
	switch st {
	case StatusOK:
		m.removeSession(s)
	case StatusSessionExpired, StatusRestored: // it is not there
	default:
		return st
	}
	return StatusOK
}

func (m *Machine) removeSession(s *session) {
	m.forget(s)
	m.timers.set(&s.timer, never)
	m.outcomes -= len(s.outcomes)
	m.sessionBytes -= int64(s.bytes)
	m.sessions.remove(s.number)
	m.sessionsByNumber.Delete(s)
	if m.sessionsByKey.rows[s.key()] == s {
		m.sessionsByKey.remove(s.key())
	}
}

// judge compares a request's epoch with the present one.
func (s *session) judge(epoch uint64) Status {
	switch {
	case epoch < s.epoch:
		return StatusFenced
	case epoch > s.epoch:
		return StatusEpochMismatch
	}
	return StatusOK
}

// findSession returns the session of a request, or why it cannot be judged. One
// from before a restore is found under the incarnation of its life: a number
// that was given out after the backup was taken has been given out again.
func (m *Machine) findSession(incarnation uint64, group uint32, number, epoch uint64) (*session, Status) {
	if group != m.group {
		return nil, StatusWrongIncarnation
	}
	s := m.sessions.rows[number]
	switch {
	case incarnation == m.incarnation:
		if s == nil || s.restored() {
			return nil, StatusSessionExpired
		}
	case s != nil && s.incarnation == incarnation:
	case m.lived(incarnation):
		return nil, StatusRestored
	default:
		return nil, StatusWrongIncarnation
	}
	if epoch > s.epoch && s.restored() && m.version >= versionRestoredAnswers {
		// Opened again after the backup was taken. Its records are answered all the
		// same, and nothing new is stored: nobody is fenced by what a restore forgot.
		return s, StatusOK
	}
	return s, s.judge(epoch)
}

// restored says whether the session is from before a restore.
func (s *session) restored() bool { return s.incarnation != 0 }

func (m *Machine) raiseFloor(s *session, floor uint64) {
	if floor <= s.floor {
		return
	}
	// The distance is the client's choice, the number of outcomes is bounded:
	// walk the shorter one.
	if floor-s.floor <= uint64(len(s.outcomes)) {
		for seq := s.floor; seq < floor; seq++ {
			m.dropOutcome(s, seq)
		}
	} else {
		for seq := range s.outcomes {
			if seq < floor {
				m.dropOutcome(s, seq)
			}
		}
	}
	s.floor = floor
}

func (m *Machine) dropOutcome(s *session, seq uint64) {
	if o, ok := s.outcomes[seq]; ok {
		delete(s.outcomes, seq)
		m.outcomes--
		m.count(s, -o.bytes())
	}
}

func (m *Machine) recordOutcome(s *session, seq uint64, o outcome) {
	s.outcomes[seq] = o
	s.highest = max(s.highest, seq)
	m.outcomes++
	m.count(s, o.bytes())
}

// outcomeCap says that no new publish may be recorded.
func (m *Machine) outcomeCap() bool {
	return m.outcomes >= m.limits.OutcomesMax || m.sessionBytes >= m.limits.SessionBytesMax
}

// publish judges each copy of the frame by itself. dst is appended to.
func (m *Machine) publish(c *publishFrame, wall int64, dst []PublishResult) (Status, []PublishResult) {
	s, st := m.findSession(c.incarnation, c.group, c.session, c.epoch)
	if st != StatusOK {
		for _, p := range c.publishes {
			dst = append(dst, PublishResult{Sequence: p.sequence, Status: st})
		}
		return st, dst
	}
	if s.restored() {
		for _, p := range c.publishes {
			dst = append(dst, m.recall(s, p.sequence, p.checksum))
		}
		return StatusOK, dst
	}
	m.raiseFloor(s, c.floor)
	s.lastActive = m.now
	m.dirty(s)
	q := m.queuesByName[string(c.queue)]
	for _, p := range c.publishes {
		dst = append(dst, m.publishOne(s, q, p, c.messages[p.first:p.first+p.count], wall))
	}
	return StatusOK, dst
}

// publishOne decides about one copy. The order is the rule: what was decided
// before is answered before anything is judged anew, and a refusal records
// nothing, so that a retry can still succeed.
func (m *Machine) publishOne(s *session, q *queue, p publish, messages [][]byte, wall int64) PublishResult {
	if r, decided := m.judge(s, p.sequence, p.after, p.checksum); decided {
		return r
	}
	as, st := m.prepare(q, messages)
	if st == StatusOK && m.outcomeCap() {
		st = StatusOutcomeCap
	}
	if st != StatusOK {
		return PublishResult{Sequence: p.sequence, Status: st}
	}
	first := m.store(q, as, messages, wall)
	o := outcome{checksum: p.checksum, queue: q.number, lane: first.lane, offset: first.offset, count: uint32(p.count)}
	m.recordOutcome(s, p.sequence, o)
	return o.result(p.sequence, false)
}

// judge answers a copy from what is known of its sequence. It is not decided
// when the copy is the first that can be stored.
func (m *Machine) judge(s *session, sequence, after, checksum uint64) (r PublishResult, decided bool) {
	refuse := func(st Status) (PublishResult, bool) { return PublishResult{Sequence: sequence, Status: st}, true }
	switch {
	case sequence < s.floor:
		return refuse(StatusBelowFloor)
	case sequence-s.floor >= SessionWindow:
		return refuse(StatusWindowFull)
	}
	if o, ok := s.outcome(sequence); ok {
		if !o.sealed && o.checksum != checksum {
			return refuse(StatusBodyDiffers)
		}
		if !o.sealed {
			m.duplicates++
			if q := m.queues[o.queue]; q != nil {
				q.counts.DuplicatesRefused++
				m.dirty(q)
			}
		}
		return o.result(sequence, true), true
	}
	if after != 0 && after >= s.floor && !m.inPlace(s, after) {
		return refuse(StatusOutOfOrder)
	}
	return r, false
}

// inPlace says that what had to be stored before the copy that names after is stored.
// That after is stored says so of all before it, since it had named the one before
// itself. A seal says nothing of those: had the sealed one been let pass, what comes
// behind it would overtake what was handed in before it and is open still. Its producer
// learns of the seal, and then names the one before.
func (m *Machine) inPlace(s *session, after uint64) bool {
	o, ok := s.outcomes[after]
	return ok && (!o.sealed || m.version < versionSealedKeepsOrder)
}

// recall answers a copy from before a restore: by its record or not at all.
// Whether what has none was stored after the backup was taken, delivered and
// acked, nobody knows any more; stored now, it could be there twice. Floor and
// records stay as they are.
func (m *Machine) recall(s *session, sequence, checksum uint64) PublishResult {
	s.lastActive = m.now
	m.dirty(s)
	o, ok := s.outcomes[sequence]
	switch {
	case sequence < s.floor:
		return PublishResult{Sequence: sequence, Status: StatusBelowFloor}
	case !ok:
		return PublishResult{Sequence: sequence, Status: StatusRestored}
	case !o.sealed && o.checksum != checksum:
		return PublishResult{Sequence: sequence, Status: StatusBodyDiffers}
	case !o.sealed:
		m.duplicates++
	}
	return o.result(sequence, true)
}

// seal closes sequences for good. What is refused for room could never be called
// final, and the window would fill: so seals have room beyond what publishes may
// take. A client that seals and never raises its floor finds an end there as well, or
// clients could fill the memory of all nodes with sequences that never were. Past that
// end the sequence at the floor can still be sealed, one a session: the floor passes it,
// then the next one is there, so every sequence comes to be final, however full it is.
func (m *Machine) seal(c seal) (Status, []PublishResult) {
	s, st := m.findSession(c.incarnation, c.group, c.session, c.epoch)
	if st != StatusOK {
		return st, nil
	}
	s.lastActive = m.now
	m.dirty(s)
	rs := make([]PublishResult, 0, len(c.sequences))
	for _, seq := range c.sequences {
		o, recorded := s.outcomes[seq]
		switch {
		case seq < s.floor:
			rs = append(rs, PublishResult{Sequence: seq, Status: StatusBelowFloor})
			continue
		case s.restored() && !recorded:
			// "Never" would be a guess.
			rs = append(rs, PublishResult{Sequence: seq, Status: StatusRestored})
			continue
		case seq-s.floor >= SessionWindow:
			rs = append(rs, PublishResult{Sequence: seq, Status: StatusWindowFull})
			continue
		case !recorded && seq != s.floor && m.outcomes >= m.limits.OutcomesMax+m.limits.SealsMax:
			rs = append(rs, PublishResult{Sequence: seq, Status: StatusOutcomeCap})
			continue
		case !recorded:
			o = outcome{sealed: true}
			m.recordOutcome(s, seq, o)
		}
		rs = append(rs, o.result(seq, false))
	}
	return StatusOK, rs
}

// Outcome says what is known of a sequence, and the session's present epoch.
// StatusNotStored is no promise: a copy may still arrive until it is sealed.
func (m *Machine) Outcome(incarnation, number, sequence uint64) (PublishResult, uint64) {
	r := PublishResult{Sequence: sequence}
	s, st := m.findSession(incarnation, m.group, number, 0)
	if s == nil {
		r.Status = st
		return r, 0
	}
	o, ok := s.outcomes[sequence]
	switch {
	case ok:
		r = o.result(sequence, false)
	case sequence < s.floor:
		r.Status = StatusBelowFloor
	case s.restored():
		r.Status = StatusRestored
	default:
		r.Status = StatusNotStored
	}
	return r, s.epoch
}

// fireSession ends an unnamed session that was idle for its expiry.
func (m *Machine) fireSession(s *session) {
	if due := s.lastActive + Time(SessionExpiry); due > m.now {
		m.dirty(s)
		m.timers.set(&s.timer, due)
		return
	}
	m.removeSession(s)
	m.spent += 1 + len(s.outcomes)
}

// sortedOutcomes returns the sequences with an outcome, in order.
func (s *session) sortedOutcomes() []uint64 {
	seqs := make([]uint64, 0, len(s.outcomes))
	for seq := range s.outcomes {
		seqs = append(seqs, seq)
	}
	slices.SortFunc(seqs, cmp.Compare[uint64])
	return seqs
}
