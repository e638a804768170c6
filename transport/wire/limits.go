package wire

import "time"

// Version is the newest version of the protocol that this code speaks, and
// VersionMin the oldest.
const (
	Version    uint16 = 1
	VersionMin uint16 = 1
)

// Limits of frames.
const (
	// FrameBytesMax bounds a whole frame, with its header.
	FrameBytesMax = 8 << 20
	// PayloadBytesMax is what remains of a frame for its payload.
	PayloadBytesMax = FrameBytesMax - FrameHeaderBytes
	// HelloBytesMax bounds the first frame of a client, which is read before
	// anything is known about it.
	HelloBytesMax = 4 << 10
)

// Limits of what may be unanswered on a connection. A client that goes beyond
// them is closed with CodeFlowControl.
const (
	// PublishWindow is the default of Welcome.PublishWindow: payload bytes of
	// publishes.
	PublishWindow = 8 << 20
	// RequestsMax counts requests, publishes among them; pings do not count.
	RequestsMax = 65_536
	// RequestBytesMax counts payload bytes of requests that are no publishes.
	RequestBytesMax = 16 << 20
)

// Limits of what is in a publish. The machine has equal ones of its own.
const (
	PublishesMax        = 65_536 // publishes in a frame
	MessagesMax         = 16_384 // messages in a publish
	HeadersMax          = 64     // headers of a message
	HeaderNameBytesMax  = 256
	HeaderValueBytesMax = 64 << 10
	BizIDBytesMax       = 512
	OrderingKeyBytesMax = 512
	QueueNameBytesMax   = 255
	// PriorityMax is the highest priority, which goes first.
	PriorityMax = 9
	// DelayMax bounds a delay and a time to live.
	DelayMax = 365 * 24 * time.Hour
	// NackDelayMax bounds the delay of a nack.
	NackDelayMax = 24 * time.Hour
	// LeaseTimeMax bounds a queue's lease time, and an extension.
	LeaseTimeMax = 12 * time.Hour
	// BodyBytesMax is the most that Welcome.BodyBytesMax can allow.
	BodyBytesMax = PayloadBytesMax
)

// Limits of the other requests and answers.
const (
	SessionNameBytesMax = 255
	LabelBytesMax       = 256
	ClientBytesMax      = 512 // Hello.Client
	ClusterBytesMax     = 128 // a cluster id
	NodeNameBytesMax    = 255
	AddressBytesMax     = 512
	TextBytesMax        = 4096   // texts for people
	SequencesMax        = 65_536 // in a seal
	RangesMax           = 65_536 // unsettled numbers, settles and delivery states in a message
	DeliveriesMax       = 65_536 // in a Deliver
	QueuesMax           = 1_000  // in QueuesReply
	NodesMax            = 1024   // in Topology and Members
	ReasonBytesMax      = 256    // why a message is given back
	NoteBytesMax        = 1024   // reasons, errors and texts of events that the machine keeps of a message
	EventsMax           = 64     // of one message; the machine keeps fewer
	EditPlacesMax       = 4_096  // in an edit
	// DoneSlack is how far beyond twice its credit a consumer's delivery numbers
	// go above its done: what the machine has settled and the client has no answer
	// for yet.
	DoneSlack = 1_024
	// ReceiveMax is how many messages one receive may ask for, ReceiveWaitMax how
	// long it may wait for the first. PullNumbersMax is how many deliveries a puller
	// may leave without an answer.
	ReceiveMax          = 1_000
	ReceiveWaitMax      = time.Minute
	PullNumbersMax      = 65_536
	AckPublishQueuesMax = 64    // outputs of an ack-and-publish
	PeekMax             = 1_000 // in what answers a peek, and lists of consumers and sessions
	RedriveMax          = 500   // messages that one step of a redrive looks at, or moves
	ConditionsMax       = 16    // of a redrive
	ConditionBytesMax   = 1_024 // of a condition's value
	DigestsMax          = 64    // in NodeStatus
	TransfersMax        = 16    // in NodeStatus
	LivesMax            = 64    // in Welcome; the machine remembers fewer
	// BackupPartBytesMax bounds a part of a backup: a chunk, or a single message.
	BackupPartBytesMax = PayloadBytesMax - 1024
)
