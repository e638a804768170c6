package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m Edit) Append(w *pack.Writer) {
	w.Array(7)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
	w.Bin(m.Nonce[:])
	w.Uint(uint64(m.Verb))
	w.Str(m.Target)
	appendList(w, m.Places)
}

func (m *Edit) read(r *pack.Reader) {
	r.ArrayExact(7)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
	r.BinExact(m.Nonce[:])
	m.Verb = EditVerb(r.Uint8())
	m.Target = r.Str(QueueNameBytesMax)
	m.Places = readList[Place](r, EditPlacesMax, placeLeast)
}

// DecodeEdit reads what Edit.Append writes.
func DecodeEdit(b []byte) (Edit, error) { return decode[Edit](b) }

// placeLeast is the size of the shortest encoding of a Place.
const placeLeast = 4

// Append writes the payload.
func (m Place) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(m.Turn)
}

func (m *Place) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.Turn = r.Uint()
}

// Append writes the payload.
func (m EditReply) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(uint64(m.Status))
	w.Bin(editStateBytes(m.States))
}

func (m *EditReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Status = Status(r.Uint8())
	m.States = readEditStates(r)
}

// DecodeEditReply reads what EditReply.Append writes.
func DecodeEditReply(b []byte) (EditReply, error) { return decode[EditReply](b) }

func editStateBytes(states []EditState) []byte {
	b := make([]byte, len(states))
	for i, s := range states {
		b[i] = byte(s)
	}
	return b
}

func readEditStates(r *pack.Reader) []EditState {
	b := r.Bin(EditPlacesMax)
	if len(b) == 0 {
		return nil
	}
	states := make([]EditState, len(b))
	for i := range b {
		states[i] = EditState(b[i])
	}
	return states
}

// Append writes the payload.
func (m AckPublish) Append(w *pack.Writer) {
	w.Array(11)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Session)
	w.Uint(m.Epoch)
	w.Uint(m.Floor)
	w.Uint(m.Sequence)
	w.Uint(m.Checksum)
	w.Bin(m.Consumer[:])
	w.Uint(m.Number)
	w.Uint(m.Done)
	appendList(w, m.Outputs)
}

func (m *AckPublish) read(r *pack.Reader) {
	r.ArrayExact(11)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Session = r.Uint()
	m.Epoch = r.Uint()
	m.Floor = r.Uint()
	m.Sequence = r.Uint()
	m.Checksum = r.Uint()
	r.BinExact(m.Consumer[:])
	m.Number = r.Uint()
	m.Done = r.Uint()
	m.Outputs = readList[Output](r, AckPublishQueuesMax, outputLeast)
}

// DecodeAckPublish reads what AckPublish.Append writes.
func DecodeAckPublish(b []byte) (AckPublish, error) { return decode[AckPublish](b) }

// outputLeast is the size of the shortest encoding of an Output.
const outputLeast = 3

// Append writes the payload.
func (m Output) Append(w *pack.Writer) {
	w.Array(2)
	w.Str(m.Queue)
	appendList(w, m.Messages)
}

func (m *Output) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Queue = r.Str(QueueNameBytesMax)
	m.Messages = readList[Message](r, MessagesMax, messageLeast)
}
