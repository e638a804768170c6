package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m CommittedRequest) Append(w *pack.Writer) { w.Array(0) }

func (m *CommittedRequest) read(r *pack.Reader) { r.ArrayExact(0) }

// DecodeCommittedRequest reads what CommittedRequest.Append writes.
func DecodeCommittedRequest(b []byte) (CommittedRequest, error) { return decode[CommittedRequest](b) }

// Append writes the payload.
func (m Committed) Append(w *pack.Writer) {
	w.Array(1)
	w.Uint(m.Index)
}

func (m *Committed) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Index = r.Uint()
}

// DecodeCommitted reads what Committed.Append writes.
func DecodeCommitted(b []byte) (Committed, error) { return decode[Committed](b) }

// Append writes the payload.
func (m BackupOpen) Append(w *pack.Writer) {
	w.Array(1)
	w.Uint(m.Index)
}

func (m *BackupOpen) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Index = r.Uint()
}

// DecodeBackupOpen reads what BackupOpen.Append writes.
func DecodeBackupOpen(b []byte) (BackupOpen, error) { return decode[BackupOpen](b) }

// Append writes the payload.
func (m BackupHead) Append(w *pack.Writer) {
	w.Array(13)
	w.Bin(m.ID[:])
	w.Str(m.Cluster)
	w.Uint(m.Incarnation)
	w.Str(m.Node)
	w.Uint(m.Index)
	w.Uint(m.Term)
	w.Int(int64(m.Now))
	w.Int(m.Wall)
	w.Uint(uint64(m.MachineVersion))
	w.Uint(m.QueueMax)
	w.Uint(m.Queues)
	w.Uint(m.Messages)
	w.Uint(m.Sessions)
}

func (m *BackupHead) read(r *pack.Reader) {
	r.ArrayExact(13)
	r.BinExact(m.ID[:])
	m.Cluster = r.Str(ClusterBytesMax)
	m.Incarnation = r.Uint()
	m.Node = r.Str(NodeNameBytesMax)
	m.Index = r.Uint()
	m.Term = r.Uint()
	m.Now = readDuration(r)
	m.Wall = r.Int()
	m.MachineVersion = r.Uint32()
	m.QueueMax = r.Uint()
	m.Queues = r.Uint()
	m.Messages = r.Uint()
	m.Sessions = r.Uint()
}

// DecodeBackupHead reads what BackupHead.Append writes.
func DecodeBackupHead(b []byte) (BackupHead, error) { return decode[BackupHead](b) }

// Append writes the payload.
func (m BackupRead) Append(w *pack.Writer) {
	w.Array(1)
	w.Uint(m.Number)
}

func (m *BackupRead) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Number = r.Uint()
}

// DecodeBackupRead reads what BackupRead.Append writes.
func DecodeBackupRead(b []byte) (BackupRead, error) { return decode[BackupRead](b) }

// Append writes the payload.
func (m BackupPart) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.Kind))
	w.Uint(m.Bodies)
	w.Bin(m.Data)
}

func (m *BackupPart) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Kind = BackupKind(r.Uint8())
	m.Bodies = r.Uint()
	m.Data = readBin(r, PayloadBytesMax)
}

// DecodeBackupPart reads what BackupPart.Append writes. Data is a view into b.
func DecodeBackupPart(b []byte) (BackupPart, error) { return decode[BackupPart](b) }

// Append writes the payload.
func (m RestoreBegin) Append(w *pack.Writer) {
	w.Array(9)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Next)
	w.Uint(m.Replaces)
	w.Str(m.Cluster)
	w.Uint(m.From)
	w.Bin(m.Backup[:])
	w.Uint(m.QueueMax)
	w.Bool(m.Force)
}

func (m *RestoreBegin) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Next = r.Uint()
	m.Replaces = r.Uint()
	m.Cluster = r.Str(ClusterBytesMax)
	m.From = r.Uint()
	r.BinExact(m.Backup[:])
	m.QueueMax = r.Uint()
	m.Force = r.Bool()
}

// DecodeRestoreBegin reads what RestoreBegin.Append writes.
func DecodeRestoreBegin(b []byte) (RestoreBegin, error) { return decode[RestoreBegin](b) }

// Append writes the payload.
func (m RestoreChunk) Append(w *pack.Writer) {
	w.Array(6)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Next)
	w.Uint(m.Number)
	w.Uint(uint64(m.Kind))
	w.Bin(m.Data)
}

func (m *RestoreChunk) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Next = r.Uint()
	m.Number = r.Uint()
	m.Kind = BackupKind(r.Uint8())
	m.Data = readBin(r, PayloadBytesMax)
}

// DecodeRestoreChunk reads what RestoreChunk.Append writes. Data is a view into b.
func DecodeRestoreChunk(b []byte) (RestoreChunk, error) { return decode[RestoreChunk](b) }

// Append writes the payload.
func (m RestoreEnd) Append(w *pack.Writer) {
	w.Array(5)
	w.Uint(m.Incarnation)
	w.Uint(uint64(m.Group))
	w.Uint(m.Next)
	w.Uint(m.Chunks)
	w.Bool(m.Abort)
}

func (m *RestoreEnd) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Incarnation = r.Uint()
	m.Group = r.Uint32()
	m.Next = r.Uint()
	m.Chunks = r.Uint()
	m.Abort = r.Bool()
}

// DecodeRestoreEnd reads what RestoreEnd.Append writes.
func DecodeRestoreEnd(b []byte) (RestoreEnd, error) { return decode[RestoreEnd](b) }

// Append writes the payload.
func (m RestoreReply) Append(w *pack.Writer) {
	w.Array(8)
	w.Uint(uint64(m.Status))
	w.Uint(m.Incarnation)
	w.Bin(m.Backup[:])
	w.Uint(m.Under)
	w.Uint(m.Chunks)
	w.Uint(m.Queues)
	w.Uint(m.Messages)
	w.Str(m.Text)
}

func (m *RestoreReply) read(r *pack.Reader) {
	r.ArrayExact(8)
	m.Status = Status(r.Uint8())
	m.Incarnation = r.Uint()
	r.BinExact(m.Backup[:])
	m.Under = r.Uint()
	m.Chunks = r.Uint()
	m.Queues = r.Uint()
	m.Messages = r.Uint()
	m.Text = r.Str(TextBytesMax)
}

// DecodeRestoreReply reads what RestoreReply.Append writes.
func DecodeRestoreReply(b []byte) (RestoreReply, error) { return decode[RestoreReply](b) }
