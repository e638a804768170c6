package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (NodeStatusRequest) Append(w *pack.Writer) {
	w.Array(0)
}

func (*NodeStatusRequest) read(r *pack.Reader) {
	r.ArrayExact(0)
}

// DecodeNodeStatusRequest reads what NodeStatusRequest.Append writes.
func DecodeNodeStatusRequest(b []byte) (NodeStatusRequest, error) {
	return decode[NodeStatusRequest](b)
}

// Append writes the payload.
func (m NodeStatus) Append(w *pack.Writer) {
	w.Array(36)
	w.Str(m.Node)
	w.Str(m.ServerID)
	w.Str(m.Cluster)
	w.Uint(m.Incarnation)
	w.Str(m.Version)
	w.Str(m.Role)
	w.Str(m.Leader)
	w.Uint(m.Term)
	w.Uint(m.AppliedIndex)
	w.Uint(m.CommitIndex)
	w.Uint(m.LastLogIndex)
	w.Uint(m.SnapshotIndex)
	w.Uint(m.DigestIndex)
	w.Uint(m.Digest)
	w.Uint(m.Sessions)
	w.Uint(m.Consumers)
	w.Uint(m.Messages)
	w.Int(int64(m.Uptime))
	w.Bool(m.Serving)
	w.Str(m.Disk)
	w.Uint(m.DiskFree)
	w.Uint(m.DiskTotal)
	w.Uint(uint64(m.MachineVersion))
	w.Uint(uint64(m.MachineSupports))
	appendList(w, m.Digests)
	w.Int(int64(m.FreezeLast))
	w.Int(int64(m.FreezeMax))
	appendList(w, m.Transfers)
	w.Uint(m.DiskBallast)
	w.Int(int64(m.BodiesStalled))
	w.Int(int64(m.AppendP50))
	w.Int(int64(m.AppendP99))
	w.Uint(m.SnapshotsTaken)
	w.Uint(m.SnapshotsReceived)
	w.Uint(m.BodyCompactions)
	w.Str(m.SnapshotDamage[:min(len(m.SnapshotDamage), TextBytesMax)])
}

func (m *NodeStatus) read(r *pack.Reader) {
	r.ArrayExact(36)
	m.Node = r.Str(NodeNameBytesMax)
	m.ServerID = r.Str(NodeNameBytesMax)
	m.Cluster = r.Str(ClusterBytesMax)
	m.Incarnation = r.Uint()
	m.Version = r.Str(LabelBytesMax)
	m.Role = r.Str(LabelBytesMax)
	m.Leader = r.Str(NodeNameBytesMax)
	m.Term = r.Uint()
	m.AppliedIndex = r.Uint()
	m.CommitIndex = r.Uint()
	m.LastLogIndex = r.Uint()
	m.SnapshotIndex = r.Uint()
	m.DigestIndex = r.Uint()
	m.Digest = r.Uint()
	m.Sessions = r.Uint()
	m.Consumers = r.Uint()
	m.Messages = r.Uint()
	m.Uptime = readDuration(r)
	m.Serving = r.Bool()
	m.Disk = r.Str(LabelBytesMax)
	m.DiskFree = r.Uint()
	m.DiskTotal = r.Uint()
	m.MachineVersion = r.Uint32()
	m.MachineSupports = r.Uint32()
	m.Digests = readList[DigestReply](r, DigestsMax, digestLeast)
	m.FreezeLast, m.FreezeMax = readDuration(r), readDuration(r)
	m.Transfers = readList[SnapshotTransfer](r, TransfersMax, transferLeast)
	m.DiskBallast = r.Uint()
	m.BodiesStalled = readDuration(r)
	m.AppendP50, m.AppendP99 = readDuration(r), readDuration(r)
	m.SnapshotsTaken, m.SnapshotsReceived, m.BodyCompactions = r.Uint(), r.Uint(), r.Uint()
	m.SnapshotDamage = r.Str(TextBytesMax)
}

// DecodeNodeStatus reads what NodeStatus.Append writes.
func DecodeNodeStatus(b []byte) (NodeStatus, error) { return decode[NodeStatus](b) }

// Append writes the payload.
func (DigestRequest) Append(w *pack.Writer) {
	w.Array(0)
}

func (*DigestRequest) read(r *pack.Reader) {
	r.ArrayExact(0)
}

// DecodeDigestRequest reads what DigestRequest.Append writes.
func DecodeDigestRequest(b []byte) (DigestRequest, error) { return decode[DigestRequest](b) }

// Append writes the payload.
func (m DigestReply) Append(w *pack.Writer) {
	w.Array(2)
	w.Uint(m.Index)
	w.Uint(m.Digest)
}

func (m *DigestReply) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Index = r.Uint()
	m.Digest = r.Uint()
}

// Append writes one transfer.
func (m SnapshotTransfer) Append(w *pack.Writer) {
	w.Array(5)
	w.Str(m.Peer)
	w.Bool(m.Receiving)
	w.Uint(m.Index)
	w.Uint(m.Bytes)
	w.Uint(m.Size)
}

func (m *SnapshotTransfer) read(r *pack.Reader) {
	r.ArrayExact(5)
	m.Peer = r.Str(NodeNameBytesMax)
	m.Receiving = r.Bool()
	m.Index, m.Bytes, m.Size = r.Uint(), r.Uint(), r.Uint()
}

// transferLeast is the size of the shortest encoding of a SnapshotTransfer.
const transferLeast = 6

// digestLeast is the size of the shortest encoding of a DigestReply.
const digestLeast = 3

// DecodeDigestReply reads what DigestReply.Append writes.
func DecodeDigestReply(b []byte) (DigestReply, error) { return decode[DigestReply](b) }

// Append writes the payload.
func (MembersRequest) Append(w *pack.Writer) {
	w.Array(0)
}

func (*MembersRequest) read(r *pack.Reader) {
	r.ArrayExact(0)
}

// DecodeMembersRequest reads what MembersRequest.Append writes.
func DecodeMembersRequest(b []byte) (MembersRequest, error) { return decode[MembersRequest](b) }

// Append writes the payload.
func (m Members) Append(w *pack.Writer) {
	w.Array(3)
	w.Str(m.Leader)
	w.Uint(m.Index)
	appendList(w, m.Members)
}

func (m *Members) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Leader = r.Str(NodeNameBytesMax)
	m.Index = r.Uint()
	m.Members = readList[Member](r, NodesMax, memberLeast)
}

// DecodeMembers reads what Members.Append writes.
func DecodeMembers(b []byte) (Members, error) { return decode[Members](b) }

// memberLeast is the size of the shortest encoding of a Member.
const memberLeast = 7

// Append writes the payload.
func (m Member) Append(w *pack.Writer) {
	w.Array(6)
	w.Str(m.Node)
	w.Str(m.ServerID)
	w.Str(m.Address)
	w.Bool(m.Voter)
	w.Bool(m.Alive)
	w.Bool(m.Leader)
}

func (m *Member) read(r *pack.Reader) {
	r.ArrayExact(6)
	m.Node = r.Str(NodeNameBytesMax)
	m.ServerID = r.Str(NodeNameBytesMax)
	m.Address = r.Str(AddressBytesMax)
	m.Voter = r.Bool()
	m.Alive = r.Bool()
	m.Leader = r.Bool()
}

// Append writes the payload.
func (m MemberChange) Append(w *pack.Writer) {
	w.Array(2)
	w.Str(m.Node)
	w.Uint(m.Seen)
}

func (m *MemberChange) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Node = r.Str(NodeNameBytesMax)
	m.Seen = r.Uint()
}

// DecodeMemberChange reads what MemberChange.Append writes.
func DecodeMemberChange(b []byte) (MemberChange, error) { return decode[MemberChange](b) }
