package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m SessionID) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
}

func (m *SessionID) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
}

// Append writes the payload.
func (m OpenSession) Append(w *pack.Writer) {
	w.Array(7)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bool(m.Named)
	w.Str(m.Name)
	w.Uint(m.ExpectedEpoch)
	w.Bin(m.Nonce[:])
	w.Str(m.Label)
}

func (m *OpenSession) read(r *pack.Reader) {
	r.ArrayExact(7)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Named = r.Bool()
	m.Name = r.Str(SessionNameBytesMax)
	m.ExpectedEpoch = r.Uint()
	r.BinExact(m.Nonce[:])
	m.Label = r.Str(LabelBytesMax)
}

// DecodeOpenSession reads what OpenSession.Append writes.
func DecodeOpenSession(b []byte) (OpenSession, error) { return decode[OpenSession](b) }

// Append writes the payload.
func (m SessionOpened) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(uint64(m.Status))
	m.Session.Append(w)
	w.Uint(m.Epoch)
	w.Uint(m.Floor)
	w.Uint(m.Next)
	w.Int(int64(m.Expiry))
}

func (m *SessionOpened) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Status = Status(r.Uint8())
	m.Session.read(r)
	m.Epoch = r.Uint()
	m.Floor = r.Uint()
	m.Next = r.Uint()
	m.Expiry = readDuration(r)
}

// DecodeSessionOpened reads what SessionOpened.Append writes.
func DecodeSessionOpened(b []byte) (SessionOpened, error) { return decode[SessionOpened](b) }

// Append writes the payload.
func (m CloseSession) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Session)
	w.Uint(m.Epoch)
}

func (m *CloseSession) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Session = r.Uint()
	m.Epoch = r.Uint()
}

// DecodeCloseSession reads what CloseSession.Append writes.
func DecodeCloseSession(b []byte) (CloseSession, error) { return decode[CloseSession](b) }

// Append writes the payload.
func (m Seal) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Session)
	w.Uint(m.Epoch)
	w.Array(len(m.Sequences))
	for _, n := range m.Sequences {
		w.Uint(n)
	}
}

func (m *Seal) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Session = r.Uint()
	m.Epoch = r.Uint()
	if n := readLen(r, SequencesMax, 1); n > 0 {
		m.Sequences = make([]uint64, n)
		for i := range m.Sequences {
			m.Sequences[i] = r.Uint()
		}
	}
}

// DecodeSeal reads what Seal.Append writes.
func DecodeSeal(b []byte) (Seal, error) { return decode[Seal](b) }

// Append writes the payload.
func (m SealReply) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(uint64(m.Status))
	appendList(w, m.Outcomes)
}

func (m *SealReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Status = Status(r.Uint8())
	m.Outcomes = readList[PublishResult](r, SequencesMax, publishResultLeast)
}

// DecodeSealReply reads what SealReply.Append writes.
func DecodeSealReply(b []byte) (SealReply, error) { return decode[SealReply](b) }

// Append writes the payload.
func (m Outcome) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Session)
	w.Uint(m.Sequence)
}

func (m *Outcome) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Session = r.Uint()
	m.Sequence = r.Uint()
}

// DecodeOutcome reads what Outcome.Append writes.
func DecodeOutcome(b []byte) (Outcome, error) { return decode[Outcome](b) }

// Append writes the payload.
func (m OutcomeReply) Append(w *pack.Writer) {
	w.Array(2)
	m.Result.Append(w)
	w.Uint(m.Epoch)
}

func (m *OutcomeReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Result.read(r)
	m.Epoch = r.Uint()
}

// DecodeOutcomeReply reads what OutcomeReply.Append writes.
func DecodeOutcomeReply(b []byte) (OutcomeReply, error) { return decode[OutcomeReply](b) }
