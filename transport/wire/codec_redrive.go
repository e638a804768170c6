package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m Redrive) Append(w *pack.Writer) {
	w.Array(14)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Str(m.Queue)
	w.Uint(m.Number)
	w.Bin(m.Nonce[:])
	w.Bin(m.Edited[:])
	w.Str(m.Target)
	appendList(w, m.Where)
	appendList(w, m.Ends)
	m.From.Append(w)
	w.Bool(m.One)
	m.At.Append(w)
	w.Uint(uint64(m.Limit))
	w.Bool(m.Dry)
}

func (m *Redrive) read(r *pack.Reader) {
	r.ArrayExact(14)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Queue = r.Str(QueueNameBytesMax)
	m.Number = r.Uint()
	r.BinExact(m.Nonce[:])
	r.BinExact(m.Edited[:])
	m.Target = r.Str(QueueNameBytesMax)
	m.Where = readList[Condition](r, ConditionsMax, conditionLeast)
	m.Ends = readList[Place](r, PriorityMax+1, placeLeast)
	m.From.read(r)
	m.One = r.Bool()
	m.At.read(r)
	m.Limit = r.Uint32()
	m.Dry = r.Bool()
}

// DecodeRedrive reads what Redrive.Append writes.
func DecodeRedrive(b []byte) (Redrive, error) { return decode[Redrive](b) }

// Append writes the payload.
func (m RedriveFrom) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.State))
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
}

func (m *RedriveFrom) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.State = MessageState(r.Uint8())
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
}

// conditionLeast is the size of the shortest encoding of a Condition.
const conditionLeast = 4

// Append writes the payload.
func (m Condition) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.Field))
	w.Uint(uint64(m.Match))
	w.Str(m.Value)
}

func (m *Condition) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Field = ConditionField(r.Uint8())
	m.Match = ConditionMatch(r.Uint8())
	m.Value = r.Str(ConditionBytesMax)
}

// Append writes the payload.
func (m RedriveReply) Append(w *pack.Writer) {
	w.Array(13)
	w.Uint(uint64(m.Status))
	w.Uint(m.Number)
	w.Bin(m.Edited[:])
	appendList(w, m.Ends)
	m.Next.Append(w)
	w.Bool(m.More)
	w.Bool(m.Repeated)
	w.Uint(uint64(m.Seen))
	w.Uint(uint64(m.Moved))
	w.Uint(uint64(m.Refused))
	w.Uint(uint64(m.Skipped))
	w.Array(len(m.Targets))
	for _, t := range m.Targets {
		w.Str(t)
	}
	appendList(w, m.Matches)
}

func (m *RedriveReply) read(r *pack.Reader) {
	r.ArrayExact(13)
	m.Status = Status(r.Uint8())
	m.Number = r.Uint()
	r.BinExact(m.Edited[:])
	m.Ends = readList[Place](r, PriorityMax+1, placeLeast)
	m.Next.read(r)
	m.More = r.Bool()
	m.Repeated = r.Bool()
	m.Seen = r.Uint32()
	m.Moved = r.Uint32()
	m.Refused = r.Uint32()
	m.Skipped = r.Uint32()
	if n := readLen(r, RedriveMax, 1); n > 0 {
		m.Targets = make([]string, n)
		for i := range m.Targets {
			m.Targets[i] = r.Str(QueueNameBytesMax)
		}
	}
	m.Matches = readList[RedriveMatch](r, RedriveMax, redriveMatchLeast)
}

// DecodeRedriveReply reads what RedriveReply.Append writes.
func DecodeRedriveReply(b []byte) (RedriveReply, error) { return decode[RedriveReply](b) }

// redriveMatchLeast is the size of the shortest encoding of a RedriveMatch.
const redriveMatchLeast = 5

// Append writes the payload.
func (m RedriveMatch) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(uint64(m.Target))
	w.Int(m.Age)
}

func (m *RedriveMatch) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.Target = r.Uint32()
	m.Age = r.Int()
}
