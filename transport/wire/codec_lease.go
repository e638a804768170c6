package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m Attach) Append(w *pack.Writer) {
	w.Array(9)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bin(m.Consumer[:])
	w.Uint(m.N)
	w.Str(m.Queue)
	w.Uint(uint64(m.Credit))
	w.Str(m.Label)
	w.Uint(m.Done)
	appendList(w, m.Unsettled)
}

func (m *Attach) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	r.BinExact(m.Consumer[:])
	m.N = r.Uint()
	m.Queue = r.Str(QueueNameBytesMax)
	m.Credit = r.Uint32()
	m.Label = r.Str(LabelBytesMax)
	m.Done = r.Uint()
	m.Unsettled = readList[Range](r, RangesMax, rangeLeast)
}

// DecodeAttach reads what Attach.Append writes.
func DecodeAttach(b []byte) (Attach, error) { return decode[Attach](b) }

// Append writes the payload.
func (m Attached) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(uint64(m.Status))
	w.Uint(m.QueueNumber)
	w.Int(int64(m.LeaseTime))
	w.Uint(m.Next)
	appendList(w, m.States)
}

func (m *Attached) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Status = Status(r.Uint8())
	m.QueueNumber = r.Uint()
	m.LeaseTime = readDuration(r)
	m.Next = r.Uint()
	m.States = readList[DeliveryState](r, RangesMax, deliveryStateLeast)
}

// DecodeAttached reads what Attached.Append writes.
func DecodeAttached(b []byte) (Attached, error) { return decode[Attached](b) }

// rangeLeast is the size of the shortest encoding of a Range.
const rangeLeast = 3

// Append writes the payload.
func (m Range) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(m.From)
	w.Uint(m.To)
}

func (m *Range) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.From = r.Uint()
	m.To = r.Uint()
}

// deliveryStateLeast is the size of the shortest encoding of a DeliveryState.
const deliveryStateLeast = 4

// Append writes the payload.
func (m DeliveryState) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(m.From)
	w.Uint(m.To)
	w.Uint(uint64(m.State))
}

func (m *DeliveryState) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.From = r.Uint()
	m.To = r.Uint()
	m.State = LeaseState(r.Uint8())
}

// Append writes the payload.
func (m Leave) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bin(m.Consumer[:])
	w.Uint(m.N)
	w.Uint(m.Done)
	appendList(w, m.NotHandled)
}

func (m *Leave) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	r.BinExact(m.Consumer[:])
	m.N = r.Uint()
	m.Done = r.Uint()
	m.NotHandled = readList[Range](r, RangesMax, rangeLeast)
}

// DecodeLeave reads what Leave.Append writes.
func DecodeLeave(b []byte) (Leave, error) { return decode[Leave](b) }

// Append writes the payload.
func (m Settle) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bin(m.Consumer[:])
	w.Uint(m.Done)
	appendList(w, m.Items)
}

func (m *Settle) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	r.BinExact(m.Consumer[:])
	m.Done = r.Uint()
	m.Items = readList[SettleItem](r, RangesMax, settleItemLeast)
}

// DecodeSettle reads what Settle.Append writes.
func DecodeSettle(b []byte) (Settle, error) { return decode[Settle](b) }

// settleItemLeast is the size of the shortest encoding of a SettleItem.
const settleItemLeast = 6

// Append writes the payload.
func (m SettleItem) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.From)
	w.Uint(m.To)
	w.Uint(uint64(m.Verb))
	w.Int(int64(m.Time))
	w.Str(m.Reason)
}

func (m *SettleItem) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.From = r.Uint()
	m.To = r.Uint()
	m.Verb = SettleVerb(r.Uint8())
	m.Time = readDuration(r)
	m.Reason = r.Str(ReasonBytesMax)
}

// Append writes the payload.
func (m Receive) Append(w *pack.Writer) {
	w.Array(9)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bin(m.Consumer[:])
	w.Str(m.Queue)
	w.Str(m.Label)
	w.Uint(m.First)
	w.Uint(m.Done)
	w.Uint(uint64(m.Limit))
	w.Int(int64(m.Wait))
}

func (m *Receive) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	r.BinExact(m.Consumer[:])
	m.Queue = r.Str(QueueNameBytesMax)
	m.Label = r.Str(LabelBytesMax)
	m.First = r.Uint()
	m.Done = r.Uint()
	m.Limit = r.Uint32()
	m.Wait = readDuration(r)
}

// DecodeReceive reads what Receive.Append writes.
func DecodeReceive(b []byte) (Receive, error) { return decode[Receive](b) }

// Append writes the payload.
func (m Release) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Bin(m.Consumer[:])
	w.Str(m.Queue)
	w.Uint(m.First)
	w.Uint(m.Done)
}

func (m *Release) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	r.BinExact(m.Consumer[:])
	m.Queue = r.Str(QueueNameBytesMax)
	m.First = r.Uint()
	m.Done = r.Uint()
}

// DecodeRelease reads what Release.Append writes.
func DecodeRelease(b []byte) (Release, error) { return decode[Release](b) }

// Append writes the payload.
func (m Received) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(uint64(m.Status))
	w.Uint(m.QueueNumber)
	w.Int(int64(m.LeaseTime))
	w.Uint(m.Next)
}

func (m *Received) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Status = Status(r.Uint8())
	m.QueueNumber = r.Uint()
	m.LeaseTime = readDuration(r)
	m.Next = r.Uint()
}

// DecodeReceived reads what Received.Append writes.
func DecodeReceived(b []byte) (Received, error) { return decode[Received](b) }

// Append writes the payload.
func (m SettleReply) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(uint64(m.Status))
	appendList(w, m.Results)
}

func (m *SettleReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Status = Status(r.Uint8())
	m.Results = readList[DeliveryState](r, RangesMax, deliveryStateLeast)
}

// DecodeSettleReply reads what SettleReply.Append writes.
func DecodeSettleReply(b []byte) (SettleReply, error) { return decode[SettleReply](b) }

// Append writes the payload.
func (m Deliver) Append(w *pack.Writer) {
	m.AppendHead(w, len(m.Deliveries))
	for i := range m.Deliveries {
		m.Deliveries[i].Append(w)
	}
}

// AppendHead writes the payload up to its deliveries, of which the caller
// appends n next. Deliveries of m is not looked at.
func (m Deliver) AppendHead(w *pack.Writer, n int) {
	w.Array(3)
	w.Bin(m.Consumer[:])
	w.Uint(m.N)
	w.Array(n)
}

func (m *Deliver) read(r *pack.Reader) {
	r.ArrayExact(3)
	r.BinExact(m.Consumer[:])
	m.N = r.Uint()
	m.Deliveries = readList[Delivery](r, DeliveriesMax, deliveryLeast)
}

// DecodeDeliver reads what Deliver.Append writes.
func DecodeDeliver(b []byte) (Deliver, error) { return decode[Deliver](b) }

// deliveryLeast is the size of the shortest encoding of a Delivery.
const deliveryLeast = 13

// Append writes the payload.
func (m Delivery) Append(w *pack.Writer) {
	w.Array(11)
	w.Uint(m.Number)
	w.Uint(m.Queue)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(uint64(m.Attempt))
	w.Uint(uint64(m.Failures))
	w.Int(int64(m.Remaining))
	w.Int(m.PublishedAt)
	w.Bin(m.Message)
	appendList(w, m.Dead)
	w.Bool(m.Restored)
}

func (m *Delivery) read(r *pack.Reader) {
	r.ArrayExact(11)
	m.Number = r.Uint()
	m.Queue = r.Uint()
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.Attempt = r.Uint32()
	m.Failures = r.Uint32()
	m.Remaining = readDuration(r)
	m.PublishedAt = r.Int()
	m.Message = readBin(r, BodyBytesMax)
	m.Dead = readList[DeadLetter](r, 1, deadLetterLeast)
	m.Restored = r.Bool()
}

// deadLetterLeast is the size of the shortest encoding of a DeadLetter.
const deadLetterLeast = 8

// Append writes the payload.
func (m DeadLetter) Append(w *pack.Writer) {
	w.Array(7)
	w.Str(m.Reason)
	w.Str(m.FirstError)
	w.Str(m.LastError)
	w.Str(m.OriginQueue)
	w.Uint(uint64(m.OriginLane))
	w.Uint(m.OriginOffset)
	w.Uint(uint64(m.OriginAttempts))
}

func (m *DeadLetter) read(r *pack.Reader) {
	r.ArrayExact(7)
	m.Reason = r.Str(NoteBytesMax)
	m.FirstError = r.Str(NoteBytesMax)
	m.LastError = r.Str(NoteBytesMax)
	m.OriginQueue = r.Str(QueueNameBytesMax)
	m.OriginLane = r.Uint8()
	m.OriginOffset = r.Uint()
	m.OriginAttempts = r.Uint32()
}

// Append writes the payload.
func (m Lost) Append(w *pack.Writer) {
	w.Array(4)
	w.Bin(m.Consumer[:])
	w.Uint(m.N)
	w.Bool(m.Gone)
	appendList(w, m.Lost)
}

func (m *Lost) read(r *pack.Reader) {
	r.ArrayExact(4)
	r.BinExact(m.Consumer[:])
	m.N = r.Uint()
	m.Gone = r.Bool()
	m.Lost = readList[DeliveryState](r, RangesMax, deliveryStateLeast)
}

// DecodeLost reads what Lost.Append writes.
func DecodeLost(b []byte) (Lost, error) { return decode[Lost](b) }
