package wire

import (
	"fmt"

	"onceq/transport/wire/pack"
)

// Append writes the payload.
func (m PublishFrame) Append(w *pack.Writer) {
	m.AppendHead(w, len(m.Publishes))
	for i := range m.Publishes {
		m.Publishes[i].Append(w)
	}
}

// AppendHead writes the payload up to its publishes, of which the caller
// appends n next. Publishes of m is not looked at.
func (m PublishFrame) AppendHead(w *pack.Writer, n int) {
	w.Array(7)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Session)
	w.Uint(m.Epoch)
	w.Uint(m.Floor)
	w.Str(m.Queue)
	w.Array(n)
}

func (m *PublishFrame) read(r *pack.Reader) {
	r.ArrayExact(7)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Session = r.Uint()
	m.Epoch = r.Uint()
	m.Floor = r.Uint()
	m.Queue = r.Str(QueueNameBytesMax)
	m.Publishes = readList[Publish](r, PublishesMax, publishLeast)
}

// DecodePublishFrame reads what PublishFrame.Append writes.
func DecodePublishFrame(b []byte) (PublishFrame, error) { return decode[PublishFrame](b) }

// publishLeast is the size of the shortest encoding of a Publish.
const publishLeast = 5

// Append writes the payload.
func (m Publish) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(m.Sequence)
	w.Uint(m.After)
	w.Uint(m.Checksum)
	appendList(w, m.Messages)
}

func (m *Publish) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Sequence = r.Uint()
	m.After = r.Uint()
	m.Checksum = r.Uint()
	m.Messages = readList[Message](r, MessagesMax, messageLeast)
}

// messageLeast is the size of the shortest encoding of a Message.
const messageLeast = 10

// Append writes the payload.
func (m Message) Append(w *pack.Writer) {
	w.Array(8)
	w.Bin(m.Body)
	w.Str(m.BizID)
	appendList(w, m.Headers)
	w.Str(m.OrderingKey)
	w.Uint(uint64(m.Priority))
	w.Int(int64(m.Delay))
	w.Int(m.DeliverAt)
	w.Int(int64(m.TTL))
}

func (m *Message) read(r *pack.Reader) {
	r.ArrayExact(8)
	m.Body = readBin(r, BodyBytesMax)
	m.BizID = r.Str(BizIDBytesMax)
	m.Headers = readHeaders(r)
	m.OrderingKey = r.Str(OrderingKeyBytesMax)
	m.Priority = r.Uint8()
	m.Delay = readDuration(r)
	m.DeliverAt = r.Int()
	m.TTL = readDuration(r)
}

// readHeaders is readList for headers: through a type parameter the reader of
// every message would be allocated.
func readHeaders(r *pack.Reader) []Header {
	n := readLen(r, HeadersMax, headerLeast)
	if n == 0 {
		return nil
	}
	list := make([]Header, n)
	for i := range list {
		list[i].read(r)
		if r.Err() != nil {
			return nil
		}
	}
	return list
}

// Decode reads what Message.Append writes. It allocates nothing for a message
// without strings and headers: the body is a view of b.
func (m *Message) Decode(b []byte) error {
	var r pack.Reader
	r.Reset(b)
	m.read(&r)
	if err := r.Done(); err != nil {
		*m = Message{}
		return fmt.Errorf("decode %T: %w", *m, err)
	}
	return nil
}

// DecodeMessage reads what Message.Append writes.
func DecodeMessage(b []byte) (m Message, err error) {
	err = m.Decode(b)
	return m, err
}

// headerLeast is the size of the shortest encoding of a Header.
const headerLeast = 3

// Append writes the payload.
func (m Header) Append(w *pack.Writer) {
	w.Array(2)
	w.Str(m.Name)
	w.Str(m.Value)
}

func (m *Header) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Name = r.Str(HeaderNameBytesMax)
	m.Value = r.Str(HeaderValueBytesMax)
}

// Append writes the payload.
func (m PublishReply) Append(w *pack.Writer) {
	w.Array(1)
	appendList(w, m.Results)
}

func (m *PublishReply) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Results = readList[PublishResult](r, PublishesMax, publishResultLeast)
}

// DecodePublishReply reads what PublishReply.Append writes.
func DecodePublishReply(b []byte) (PublishReply, error) { return decode[PublishReply](b) }

// publishResultLeast is the size of the shortest encoding of a PublishResult.
const publishResultLeast = 9

// Append writes the payload.
func (m PublishResult) Append(w *pack.Writer) {
	w.Array(8)
	w.Uint(m.Sequence)
	w.Uint(uint64(m.Status))
	w.Bool(m.Duplicate)
	w.Uint(m.Queue)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(uint64(m.Count))
	appendList(w, m.Outputs)
}

func (m *PublishResult) read(r *pack.Reader) {
	r.ArrayExact(8)
	m.Sequence = r.Uint()
	m.Status = Status(r.Uint8())
	m.Duplicate = r.Bool()
	m.Queue = r.Uint()
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.Count = r.Uint32()
	m.Outputs = readList[Position](r, AckPublishQueuesMax, positionLeast)
}

// positionLeast is the size of the shortest encoding of a Position.
const positionLeast = 5

// Append writes the payload.
func (m Position) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(m.Queue)
	w.Uint(uint64(m.Lane))
	w.Uint(m.Offset)
	w.Uint(uint64(m.Count))
}

func (m *Position) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Queue = r.Uint()
	m.Lane = r.Uint8()
	m.Offset = r.Uint()
	m.Count = r.Uint32()
}
