package outbox

import (
	"onceq/client"
	"onceq/client/internal/sequenced"
)

// sending is an entry that was sent, in memory. Owned by the keeper.
type sending struct {
	line    *line
	number  Number
	id      client.InnerMsgID
	bytes   int
	publish sequenced.Publish // until it is handed over
	resent  bool              // a copy may have been sent before
	settled bool              // its outcome is on disk
}

// line is what was sent in a session, by rising sequence. Owned by the keeper.
type line struct {
	session sequenced.Session
	next    uint64     // the next sequence
	open    []*sending // the head is not settled
	n       int        // not settled
	bytes   int        // of those
}

// floor is the lowest sequence without an outcome on disk.
func (l *line) floor() uint64 {
	for len(l.open) > 0 && l.open[0].settled {
		l.open = l.open[1:]
	}
	if len(l.open) > 0 {
		return l.open[0].id.Sequence
	}
	return l.next
}

func (l *line) add(e *sending) {
	e.line = l
	l.open = append(l.open, e)
	l.n++
	l.bytes += e.bytes
}
