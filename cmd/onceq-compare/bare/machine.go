package bare

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// An entry is its number (8 bytes) and commands, each a kind, the length of what follows
// (4 bytes), and that: the body of the client's frame as it came.
const (
	entryHead   = 8
	commandHead = 5
)

func appendCommand(entry []byte, k kind, body []byte) []byte {
	entry = append(entry, k)
	entry = binary.BigEndian.AppendUint32(entry, uint32(len(body)))
	return append(entry, body...)
}

// machine is queues of messages. The messages are in the memory of their entries, which
// stays until the last of them is gone. raft's goroutine alone uses it.
type machine struct {
	queues map[uint32]*queue
	// applied is called behind each entry.
	applied func(number uint64)
	// stored and acked tell what an entry does.
	stored func(queue uint32, offset uint64, message []byte)
	acked  func(queue uint32, offset uint64)
	// gone tells of a queue that is deleted.
	gone func(queue uint32)
}

type queue struct {
	next     uint64 // offset of the next message
	messages map[uint64][]byte
}

func (m *machine) queue(n uint32) *queue {
	q := m.queues[n]
	if q == nil {
		q = &queue{messages: map[uint64][]byte{}}
		m.queues[n] = q
	}
	return q
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any {
	if len(l.Data) < entryHead {
		return fmt.Errorf("%w: entry %d", errMalformed, l.Index)
	}
	err := m.commands(l.Data[entryHead:])
	m.applied(binary.BigEndian.Uint64(l.Data))
	return err
}

func (m *machine) commands(b []byte) error {
	for len(b) > 0 {
		if len(b) < commandHead {
			return errMalformed
		}
		k, n := b[0], binary.BigEndian.Uint32(b[1:])
		if b = b[commandHead:]; uint64(n) > uint64(len(b)) || n < 4 {
			return errMalformed
		}
		if err := m.command(k, binary.BigEndian.Uint32(b), b[4:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (m *machine) command(k kind, number uint32, body []byte) error {
	if k == kindDelete {
		delete(m.queues, number)
		m.gone(number)
		return nil
	}
	q := m.queue(number)
	switch k {
	case kindPublish:
		for len(body) > 0 {
			message, rest, err := block(body)
			if err != nil {
				return err
			}
			q.messages[q.next] = message
			m.stored(number, q.next, message)
			q.next++
			body = rest
		}
	case kindAck:
		for ; len(body) >= 8; body = body[8:] {
			offset := binary.BigEndian.Uint64(body)
			if _, there := q.messages[offset]; there {
				delete(q.messages, offset)
				m.acked(number, offset)
			}
		}
	}
	return nil
}

// Snapshot implements raft.FSM. There are none: the log is kept.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }

// Restore implements raft.FSM.
func (m *machine) Restore(r io.ReadCloser) error {
	r.Close()
	return fmt.Errorf("%w: a snapshot, which nobody takes", errMalformed)
}
