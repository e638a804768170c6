package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m QueueSettings) Append(w *pack.Writer) {
	w.Array(9)
	w.Int(int64(m.LeaseTime))
	w.Uint(m.LengthMax)
	w.Uint(m.BytesMax)
	w.Int(int64(m.TTL))
	w.Uint(uint64(m.DeliveryLimit))
	w.Str(m.DeadLetter)
	w.Int(int64(m.BackoffMin))
	w.Int(int64(m.BackoffMax))
	w.Bool(m.SingleActive)
}

func (m *QueueSettings) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.LeaseTime = readDuration(r)
	m.LengthMax = r.Uint()
	m.BytesMax = r.Uint()
	m.TTL = readDuration(r)
	m.DeliveryLimit = r.Uint32()
	m.DeadLetter = r.Str(QueueNameBytesMax)
	m.BackoffMin = readDuration(r)
	m.BackoffMax = readDuration(r)
	m.SingleActive = r.Bool()
}

// Append writes the payload.
func (m QueueCreate) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Str(m.Name)
	w.Uint(m.Deletions)
	m.Settings.Append(w)
}

func (m *QueueCreate) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Name = r.Str(QueueNameBytesMax)
	m.Deletions = r.Uint()
	m.Settings.read(r)
}

// DecodeQueueCreate reads what QueueCreate.Append writes.
func DecodeQueueCreate(b []byte) (QueueCreate, error) { return decode[QueueCreate](b) }

// Append writes the payload.
func (m QueueDelete) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
	w.Bool(m.Force)
}

func (m *QueueDelete) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
	m.Force = r.Bool()
}

// DecodeQueueDelete reads what QueueDelete.Append writes.
func DecodeQueueDelete(b []byte) (QueueDelete, error) { return decode[QueueDelete](b) }

// Append writes the payload.
func (m QueuePurge) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
	w.Uint(m.Revision)
	w.Bin(m.Nonce[:])
}

func (m *QueuePurge) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
	m.Revision = r.Uint()
	r.BinExact(m.Nonce[:])
}

// DecodeQueuePurge reads what QueuePurge.Append writes.
func DecodeQueuePurge(b []byte) (QueuePurge, error) { return decode[QueuePurge](b) }

// Append writes the payload.
func (m QueueUpdate) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
	w.Uint(m.Revision)
	w.Bin(m.Nonce[:])
	m.Settings.Append(w)
}

func (m *QueueUpdate) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
	m.Revision = r.Uint()
	r.BinExact(m.Nonce[:])
	m.Settings.read(r)
}

// DecodeQueueUpdate reads what QueueUpdate.Append writes.
func DecodeQueueUpdate(b []byte) (QueueUpdate, error) { return decode[QueueUpdate](b) }

// Append writes the payload.
func (m QueuePause) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Number)
	w.Uint(m.Revision)
	w.Bin(m.Nonce[:])
	w.Bool(m.Paused)
}

func (m *QueuePause) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Number = r.Uint()
	m.Revision = r.Uint()
	r.BinExact(m.Nonce[:])
	m.Paused = r.Bool()
}

// DecodeQueuePause reads what QueuePause.Append writes.
func DecodeQueuePause(b []byte) (QueuePause, error) { return decode[QueuePause](b) }

// Append writes the payload.
func (m QueueReply) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(uint64(m.Status))
	w.Str(m.Text)
	w.Uint(m.Removed)
	w.Uint(m.Deletions)
	m.Info.Append(w)
}

func (m *QueueReply) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Status = Status(r.Uint8())
	m.Text = r.Str(TextBytesMax)
	m.Removed = r.Uint()
	m.Deletions = r.Uint()
	m.Info.read(r)
}

// DecodeQueueReply reads what QueueReply.Append writes.
func DecodeQueueReply(b []byte) (QueueReply, error) { return decode[QueueReply](b) }

// queueInfoLeast is the size of the shortest encoding of a QueueInfo.
const queueInfoLeast = 38

// Append writes the payload.
func (m QueueInfo) Append(w *pack.Writer) {
	w.Array(9)
	w.Uint(m.Number)
	w.Str(m.Name)
	w.Uint(m.Revision)
	w.Bool(m.Paused)
	m.Settings.Append(w)
	m.Counts.Append(w)
	w.Uint(m.Bytes)
	w.Uint(m.Consumers)
	w.Int(int64(m.OldestAge))
}

func (m *QueueInfo) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Number = r.Uint()
	m.Name = r.Str(QueueNameBytesMax)
	m.Revision = r.Uint()
	m.Paused = r.Bool()
	m.Settings.read(r)
	m.Counts.read(r)
	m.Bytes = r.Uint()
	m.Consumers = r.Uint()
	m.OldestAge = readDuration(r)
}

// Append writes the payload.
func (m QueueCounts) Append(w *pack.Writer) {
	w.Array(17)
	w.Uint(m.Stored)
	w.Uint(m.Ready)
	w.Uint(m.Leased)
	w.Uint(m.Delayed)
	w.Uint(m.Parked)
	w.Uint(m.Acked)
	w.Uint(m.Expired)
	w.Uint(m.DeadLettered)
	w.Uint(m.Deleted)
	w.Uint(m.Purged)
	w.Uint(m.Moved)
	w.Uint(m.Delivered)
	w.Uint(m.RedeliveredExpired)
	w.Uint(m.RedeliveredNacked)
	w.Uint(m.RedeliveredGone)
	w.Uint(m.RedeliveredLeft)
	w.Uint(m.DuplicatesRefused)
}

func (m *QueueCounts) read(r *pack.Reader) {
	r.ArrayExact(17)
	m.Stored = r.Uint()
	m.Ready = r.Uint()
	m.Leased = r.Uint()
	m.Delayed = r.Uint()
	m.Parked = r.Uint()
	m.Acked = r.Uint()
	m.Expired = r.Uint()
	m.DeadLettered = r.Uint()
	m.Deleted = r.Uint()
	m.Purged = r.Uint()
	m.Moved = r.Uint()
	m.Delivered = r.Uint()
	m.RedeliveredExpired = r.Uint()
	m.RedeliveredNacked = r.Uint()
	m.RedeliveredGone = r.Uint()
	m.RedeliveredLeft = r.Uint()
	m.DuplicatesRefused = r.Uint()
}

// Append writes the payload.
func (m QueueShow) Append(w *pack.Writer) {
	w.Array(1)
	w.Str(m.Name)
}

func (m *QueueShow) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Name = r.Str(QueueNameBytesMax)
}

// DecodeQueueShow reads what QueueShow.Append writes.
func DecodeQueueShow(b []byte) (QueueShow, error) { return decode[QueueShow](b) }

// Append writes the payload.
func (m QueueList) Append(w *pack.Writer) {
	w.Array(1)
	w.Uint(m.From)
}

func (m *QueueList) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.From = r.Uint()
}

// DecodeQueueList reads what QueueList.Append writes.
func DecodeQueueList(b []byte) (QueueList, error) { return decode[QueueList](b) }

// Append writes the payload.
func (m QueuesReply) Append(w *pack.Writer) {
	w.Array(2)
	appendList(w, m.Queues)
	w.Uint(m.Next)
}

func (m *QueuesReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Queues = readList[QueueInfo](r, QueuesMax, queueInfoLeast)
	m.Next = r.Uint()
}

// DecodeQueuesReply reads what QueuesReply.Append writes.
func DecodeQueuesReply(b []byte) (QueuesReply, error) { return decode[QueuesReply](b) }
