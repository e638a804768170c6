package wire

import "onceq/transport/wire/pack"

// Append writes the payload.
func (m Hello) Append(w *pack.Writer) {
	w.Array(3)
	w.Uint(uint64(m.Version))
	w.Str(m.Client)
	w.Str(m.Cluster)
}

func (m *Hello) read(r *pack.Reader) {
	r.ArrayExact(3)
	m.Version = r.Uint16()
	m.Client = r.Str(ClientBytesMax)
	m.Cluster = r.Str(ClusterBytesMax)
}

// DecodeHello reads what Hello.Append writes.
func DecodeHello(b []byte) (Hello, error) { return decode[Hello](b) }

// Append writes the payload.
func (m Welcome) Append(w *pack.Writer) {
	w.Array(9)
	w.Uint(uint64(m.Version))
	w.Str(m.Cluster)
	w.Uint(m.Incarnation)
	w.Str(m.Node)
	w.Uint(uint64(m.PublishWindow))
	w.Uint(uint64(m.FrameBytesMax))
	w.Uint(uint64(m.BodyBytesMax))
	m.Topology.Append(w)
	appendList(w, m.Lives)
}

func (m *Welcome) read(r *pack.Reader) {
	r.ArrayExact(9)
	m.Version = r.Uint16()
	m.Cluster = r.Str(ClusterBytesMax)
	m.Incarnation = r.Uint()
	m.Node = r.Str(NodeNameBytesMax)
	m.PublishWindow = r.Uint32()
	m.FrameBytesMax = r.Uint32()
	m.BodyBytesMax = r.Uint32()
	m.Topology.read(r)
	m.Lives = readList[Life](r, LivesMax, lifeLeast)
}

// lifeLeast is the size of the shortest encoding of a Life.
const lifeLeast = 3

// Append writes the payload.
func (m Life) Append(w *pack.Writer) {
	w.Array(2)
	w.Str(m.Cluster)
	w.Uint(m.Incarnation)
}

func (m *Life) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Cluster = r.Str(ClusterBytesMax)
	m.Incarnation = r.Uint()
}

// DecodeWelcome reads what Welcome.Append writes.
func DecodeWelcome(b []byte) (Welcome, error) { return decode[Welcome](b) }

// Append writes the payload.
func (m Topology) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(uint64(m.Group))
	w.Uint(m.Term)
	w.Str(m.Leader)
	appendList(w, m.Nodes)
}

func (m *Topology) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Group = r.Uint32()
	m.Term = r.Uint()
	m.Leader = r.Str(NodeNameBytesMax)
	m.Nodes = readList[NodeAddress](r, NodesMax, nodeAddressLeast)
}

// DecodeTopology reads what Topology.Append writes.
func DecodeTopology(b []byte) (Topology, error) { return decode[Topology](b) }

// nodeAddressLeast is the size of the shortest encoding of a NodeAddress.
const nodeAddressLeast = 3

// Append writes the payload.
func (m NodeAddress) Append(w *pack.Writer) {
	w.Array(2)
	w.Str(m.Name)
	w.Str(m.Address)
}

func (m *NodeAddress) read(r *pack.Reader) {
	r.ArrayExact(2)
	m.Name = r.Str(NodeNameBytesMax)
	m.Address = r.Str(AddressBytesMax)
}

// Append writes the payload.
func (m ErrorReply) Append(w *pack.Writer) {
	w.Array(4)
	w.Uint(uint64(m.Code))
	w.Bool(m.Retriable)
	w.Str(m.Text)
	w.Str(m.Leader)
}

func (m *ErrorReply) read(r *pack.Reader) {
	r.ArrayExact(4)
	m.Code = Code(r.Uint16())
	m.Retriable = r.Bool()
	m.Text = r.Str(TextBytesMax)
	m.Leader = r.Str(AddressBytesMax)
}

// DecodeErrorReply reads what ErrorReply.Append writes.
func DecodeErrorReply(b []byte) (ErrorReply, error) { return decode[ErrorReply](b) }

// Append writes the payload.
func (m StatusReply) Append(w *pack.Writer) {
	w.Array(1)
	w.Uint(uint64(m.Status))
}

func (m *StatusReply) read(r *pack.Reader) {
	r.ArrayExact(1)
	m.Status = Status(r.Uint8())
}

// DecodeStatusReply reads what StatusReply.Append writes.
func DecodeStatusReply(b []byte) (StatusReply, error) { return decode[StatusReply](b) }
