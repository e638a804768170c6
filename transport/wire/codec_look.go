package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m Peek) Append(w *pack.Writer) {
	w.Array(6)
	w.Str(m.Queue)
	w.Uint(uint64(m.State))
	w.Uint(uint64(m.FromLane))
	w.Uint(m.FromOffset)
	w.Uint(uint64(m.Limit))
	w.Bool(m.Bodies)
}

func (m *Peek) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Queue = r.Str(QueueNameBytesMax)
	m.State = MessageState(r.Uint8())
	m.FromLane = r.Uint8()
	m.FromOffset = r.Uint()
	m.Limit = r.Uint32()
	m.Bodies = r.Bool()
}

// DecodePeek reads what Peek.Append writes.
func DecodePeek(b []byte) (Peek, error) { return decode[Peek](b) }

// Append writes the payload.
func (m PeekReply) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.Status))
	w.Bool(m.More)
	appendList(w, m.Messages)
}

func (m *PeekReply) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Status = Status(r.Uint8())
	m.More = r.Bool()
	m.Messages = readList[MessageInfo](r, PeekMax, messageInfoLeast)
}

// DecodePeekReply reads what PeekReply.Append writes.
func DecodePeekReply(b []byte) (PeekReply, error) { return decode[PeekReply](b) }

// Append writes the payload.
func (m MessageShow) Append(w *pack.Writer) {
	w.Array(3)
	w.Str(m.Queue)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
}

func (m *MessageShow) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Queue = r.Str(QueueNameBytesMax)
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
}

// DecodeMessageShow reads what MessageShow.Append writes.
func DecodeMessageShow(b []byte) (MessageShow, error) { return decode[MessageShow](b) }

// messageInfoLeast is the size of the shortest encoding of a MessageInfo.
const messageInfoLeast = 44

// Append writes the payload.
func (m MessageInfo) Append(w *pack.Writer) {
	w.Array(23)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(uint64(m.State))
	w.Uint(uint64(m.Attempts))
	w.Uint(uint64(m.Failures))
	w.Int(int64(m.Age))
	w.Int(int64(m.Due))
	w.Int(int64(m.Expires))
	w.Str(m.OrderingKey)
	w.Bin(m.Consumer[:])
	w.Str(m.Label)
	w.Uint(m.Number)
	w.Int(int64(m.Deadline))
	w.Str(m.Reason)
	w.Str(m.FirstError)
	w.Str(m.LastError)
	appendList(w, m.Events)
	w.Str(m.OriginQueue)
	w.Uint(uint64(m.OriginLane))
	w.Uint(m.OriginOffset)
	w.Uint(uint64(m.OriginAttempts))
	w.Int(m.PublishedAt)
	w.Bin(m.Message)
}

func (m *MessageInfo) read(r *pack.Reader) {
	r.ArrayExact(23)
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.State = MessageState(r.Uint8())
	m.Attempts = r.Uint32()
	m.Failures = r.Uint32()
	m.Age = readDuration(r)
	m.Due = readDuration(r)
	m.Expires = readDuration(r)
	m.OrderingKey = r.Str(OrderingKeyBytesMax)
	r.BinExact(m.Consumer[:])
	m.Label = r.Str(LabelBytesMax)
	m.Number = r.Uint()
	m.Deadline = readDuration(r)
	m.Reason = r.Str(NoteBytesMax)
	m.FirstError = r.Str(NoteBytesMax)
	m.LastError = r.Str(NoteBytesMax)
	m.Events = readList[MessageEvent](r, EventsMax, messageEventLeast)
	m.OriginQueue = r.Str(QueueNameBytesMax)
	m.OriginLane = r.Uint8()
	m.OriginOffset = r.Uint()
	m.OriginAttempts = r.Uint32()
	m.PublishedAt = r.Int()
	m.Message = readBin(r, BodyBytesMax)
}

// messageEventLeast is the size of the shortest encoding of a MessageEvent.
const messageEventLeast = 6

// Append writes the payload.
func (m MessageEvent) Append(w *pack.Writer) {
	w.Array(5)
	w.Int(int64(m.Ago))
	w.Uint(uint64(m.Kind))
	w.Uint(uint64(m.Attempt))
	w.Uint(m.Consumer)
	w.Str(m.Text)
}

func (m *MessageEvent) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Ago = readDuration(r)
	m.Kind = EventKind(r.Uint8())
	m.Attempt = r.Uint32()
	m.Consumer = r.Uint()
	m.Text = r.Str(NoteBytesMax)
}

// Append writes the payload.
func (m ConsumersRequest) Append(w *pack.Writer) {
	w.Array(3)
	w.Str(m.Queue)
	w.Uint(m.From)
	w.Uint(uint64(m.Limit))
}

func (m *ConsumersRequest) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Queue = r.Str(QueueNameBytesMax)
	m.From = r.Uint()
	m.Limit = r.Uint32()
}

// DecodeConsumersRequest reads what ConsumersRequest.Append writes.
func DecodeConsumersRequest(b []byte) (ConsumersRequest, error) { return decode[ConsumersRequest](b) }

// Append writes the payload.
func (m ConsumersReply) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(uint64(m.Status))
	appendList(w, m.Consumers)
}

func (m *ConsumersReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Status = Status(r.Uint8())
	m.Consumers = readList[ConsumerInfo](r, PeekMax, consumerInfoLeast)
}

// DecodeConsumersReply reads what ConsumersReply.Append writes.
func DecodeConsumersReply(b []byte) (ConsumersReply, error) { return decode[ConsumersReply](b) }

// consumerInfoLeast is the size of the shortest encoding of a ConsumerInfo.
const consumerInfoLeast = 28

// Append writes the payload.
func (m ConsumerInfo) Append(w *pack.Writer) {
	w.Array(10)
	w.Uint(m.Ordinal)
	w.Bin(m.ID[:])
	w.Str(m.Queue)
	w.Str(m.Label)
	w.Uint(m.N)
	w.Bool(m.Attached)
	w.Bool(m.Pulls)
	w.Uint(uint64(m.Credit))
	w.Uint(uint64(m.Held))
	w.Uint(m.Next)
}

func (m *ConsumerInfo) read(r *pack.Reader) {
	r.ArrayExact(10)
	m.Ordinal = r.Uint()
	r.BinExact(m.ID[:])
	m.Queue = r.Str(QueueNameBytesMax)
	m.Label = r.Str(LabelBytesMax)
	m.N = r.Uint()
	m.Attached = r.Bool()
	m.Pulls = r.Bool()
	m.Credit = r.Uint32()
	m.Held = r.Uint32()
	m.Next = r.Uint()
}

// Append writes the payload.
func (m SessionsRequest) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(m.From)
	w.Uint(uint64(m.Limit))
}

func (m *SessionsRequest) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.From = r.Uint()
	m.Limit = r.Uint32()
}

// DecodeSessionsRequest reads what SessionsRequest.Append writes.
func DecodeSessionsRequest(b []byte) (SessionsRequest, error) { return decode[SessionsRequest](b) }

// Append writes the payload.
func (m SessionsReply) Append(w *pack.Writer) {
	w.Array(1)
	appendList(w, m.Sessions)
}

func (m *SessionsReply) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Sessions = readList[SessionInfo](r, PeekMax, sessionInfoLeast)
}

// DecodeSessionsReply reads what SessionsReply.Append writes.
func DecodeSessionsReply(b []byte) (SessionsReply, error) { return decode[SessionsReply](b) }

// sessionInfoLeast is the size of the shortest encoding of a SessionInfo.
const sessionInfoLeast = 13

// Append writes the payload.
func (m SessionInfo) Append(w *pack.Writer) {
	w.Array(9)
	m.Session.Append(w)
	w.Bool(m.Named)
	w.Str(m.Name)
	w.Str(m.Label)
	w.Uint(m.Epoch)
	w.Uint(m.Floor)
	w.Uint(m.Next)
	w.Uint(uint64(m.Outcomes))
	w.Int(int64(m.Idle))
}

func (m *SessionInfo) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Session.read(r)
	m.Named = r.Bool()
	m.Name = r.Str(SessionNameBytesMax)
	m.Label = r.Str(LabelBytesMax)
	m.Epoch = r.Uint()
	m.Floor = r.Uint()
	m.Next = r.Uint()
	m.Outcomes = r.Uint32()
	m.Idle = readDuration(r)
}
