package fsmtest

import "onceq/fsm"

// The caps, each counted anew whenever it is asked for.

func reached[N int | int64](most, have N) bool { return most > 0 && have >= most }

func (m *Model) openSessions() (open []*modelSession) {
	for _, s := range m.sessions {
		if !s.closed {
			open = append(open, s)
		}
	}
	return open
}

func (m *Model) outcomes() (n int) {
	for _, s := range m.openSessions() {
		n += len(s.outcomes)
	}
	return n
}

func (m *Model) sessionBytes() (n int64) {
	for _, s := range m.openSessions() {
		n += int64(fsm.SessionBytes + len(s.name))
		for _, o := range s.outcomes {
			n += fsm.OutcomeBytes
			if o.several {
				n += int64(fsm.PositionBytes * len(o.places))
			}
		}
	}
	return n
}

func (m *Model) outcomeCap() bool {
	return reached(m.Limits.OutcomesMax, m.outcomes()) || reached(m.Limits.SessionBytesMax, m.sessionBytes())
}

func (m *Model) consumers() (n int) {
	for _, q := range m.queues {
		n += len(q.consumers)
	}
	return n
}

// remembered counts deliveries that are held, or whose outcome is kept.
func (m *Model) remembered() (n int) {
	for _, q := range m.queues {
		for _, k := range q.consumers {
			n += len(k.log) + 1 - int(k.done)
		}
	}
	return n
}

// head is where what was never delivered begins: a message with a record is passed as
// soon as nothing plain is before it.
func (q *modelQueue) head(lane int) int {
	for i, x := range q.lanes[lane] {
		if x.milestone != nil {
			return i
		}
	}
	return len(q.lanes[lane])
}

// records counts messages that have one, and those that are gone, not passed yet, and
// not told by a range.
func (m *Model) records() (n int) {
	for _, q := range m.queues {
		for i, lane := range q.lanes {
			head := q.head(i)
			for _, x := range lane {
				if !q.deleted && (x.own && x.here() || !x.here() && !x.ranged && x.offset > head) {
					n++
				}
			}
		}
	}
	return n
}

// mayReturn says that so many more could have a record, with all that are leased and
// have none.
func (m *Model) mayReturn(more int) bool {
	if m.Limits.IndexedMax == 0 {
		return true
	}
	for _, q := range m.queues {
		for _, lane := range q.lanes {
			for _, x := range lane {
				if !q.deleted && x.state == "leased" && !x.own {
					more++
				}
			}
		}
	}
	return m.records()+more <= m.Limits.IndexedMax+m.Limits.ReturnsMax
}

func (m *Model) mayIndex(more int) bool {
	return m.mayLeave(more) && (m.Limits.IndexedMax == 0 || m.records()+more <= m.Limits.IndexedMax && m.mayReturn(more))
}

// ranges counts the rows of neighbours that are gone, and neither passed nor told by
// records.
func (m *Model) ranges() (n int) {
	for _, q := range m.queues {
		for i, lane := range q.lanes {
			within := false
			for _, x := range lane[q.head(i):] {
				gone := !q.deleted && !x.here() && x.ranged
				if gone && !within {
					n++
				}
				within = gone
			}
		}
	}
	return n
}

// mayLeave says that there may be so many more ranges.
func (m *Model) mayLeave(more int) bool {
	return m.version < 4 || m.Limits.GoneRangesMax == 0 || m.ranges()+more <= m.Limits.GoneRangesMax
}

// mayEndAhead says that a message which is not passed yet may be taken out by command.
func (m *Model) mayEndAhead() bool {
	if m.version < 4 {
		return m.mayIndex(1)
	}
	return m.mayLeave(1)
}

// Ranges is ranges, for a test to compare.
func (m *Model) Ranges() int { return m.ranges() }

// Records is records, for a test to compare.
func (m *Model) Records() int { return m.records() }

// heldBack says that there is no room for a message's lease, or for its return.
func (m *Model) heldBack(x *modelMessage) bool {
	return reached(m.Limits.LeasesMax, m.remembered()) || !x.own && !m.mayReturn(1)
}
