package fsm

// note adds an event to what is remembered of a message that failed. At the cap of what
// all messages together remember it is without its text.
func (m *Machine) note(msg *message, e event) {
	if !m.mayNote(e.text) {
		e.text = ""
	}
	msg.note(e)
	m.countNotes(msg)
}

// fail remembers the error that an attempt ended with, as far as there is room.
func (m *Machine) fail(msg *message, text string) {
	switch {
	case m.mayNote(text):
		msg.fail(text)
	case msg.notes != nil:
		msg.notes.last = "" // an older one is not the last
	}
	m.countNotes(msg)
}

func (m *Machine) mayNote(text string) bool {
	return text == "" || m.version < versionNotesBounded || m.noteBytes+int64(len(text)) <= m.limits.NotesBytesMax
}

// countNotes counts the texts that a message has now in place of those it had. One that
// is in no queue yet is counted when it gets its record.
func (m *Machine) countNotes(msg *message) {
	if msg.q == nil {
		return
	}
	n := 0
	if msg.notes != nil {
		n = msg.notes.textBytes()
	}
	more := int64(n) - int64(msg.noteBytes)
	msg.noteBytes = uint32(n)
	msg.q.noteBytes += more
	m.noteBytes += more
}

// textBytes is the size of what clients have said of a message's failures.
func (n *notes) textBytes() int {
	sum := len(n.first) + len(n.last)
	for i := range n.events {
		sum += len(n.events[i].text)
	}
	return sum
}
