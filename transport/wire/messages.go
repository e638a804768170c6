package wire

import "time"

// The types of this file, messages_edit.go and messages_look.go are the words
// that client and server share. Each
// payload is one msgpack array of the struct's fields in the order in which
// they stand here (nested structs are nested arrays, slices are arrays, ids of
// 16 bytes are bin, times are int64 nanoseconds), written and read by hand. An
// array of another length is malformed.
//
// The payload of a request that changes the queue machine (OpOpenSession to
// OpAckPublish in ops.go) is also, byte for byte, the payload of the command that
// the leader puts into the raft log, so that a body is not encoded twice.

// Hello is the first frame of a client.
type Hello struct {
	Version uint16 // protocol version, see Version
	Client  string // free text for logs: library, version, the user's label
	Cluster string // cluster id the client expects; "" when it does not know yet
}

// Welcome answers Hello.
type Welcome struct {
	Version       uint16
	Cluster       string
	Incarnation   uint64
	Node          string
	PublishWindow uint32 // bytes of publish frames that may be unanswered on this connection
	FrameBytesMax uint32
	BodyBytesMax  uint32
	Topology      Topology
	Lives         []Life // before the restores that led here, newest last
}

// Life is a cluster between two restores. A client that knows the cluster by one
// of them is in the right place.
type Life struct {
	Cluster     string // "" for this very cluster
	Incarnation uint64
}

// Was says whether the cluster, or what it was restored from, had this id once.
func (w Welcome) Was(cluster string) bool {
	if w.Cluster == cluster {
		return true
	}
	for _, l := range w.Lives {
		if l.Cluster == cluster && cluster != "" {
			return true
		}
	}
	return false
}

// Lived says whether a restore has led here from an incarnation.
func (w Welcome) Lived(incarnation uint64) bool {
	for _, l := range w.Lives {
		if l.Incarnation == incarnation {
			return true
		}
	}
	return false
}

// Topology says where the nodes are and who leads a group. The server pushes
// it whenever it changes.
type Topology struct {
	Group  uint32
	Term   uint64 // a client ignores a topology with a term lower than one it has
	Leader string // node name; "" when none is known
	Nodes  []NodeAddress
}

// NodeAddress is where a node listens for clients.
type NodeAddress struct {
	Name    string
	Address string
}

// ErrorReply answers any request that failed. A bad request is answered and the
// connection lives; a bad frame closes it.
type ErrorReply struct {
	Code      Code
	Retriable bool
	Text      string // for people; nobody compares it
	Leader    string // with CodeNotLeader: address of the leader if known
}

// OpenSession opens a session. An unnamed session (Named false) is one whose
// name is its nonce. It succeeds only if the session's present epoch is
// ExpectedEpoch (0: it does not exist yet); a repeat with the nonce of the
// present epoch gets the same answer.
type OpenSession struct {
	Incarnation   uint64
	Group         uint32
	Named         bool
	Name          string
	ExpectedEpoch uint64
	Nonce         Nonce
	Label         string
}

// SessionOpened answers OpenSession. With Status StatusEpochMismatch only Epoch
// (the present one) is set.
type SessionOpened struct {
	Status  Status
	Session SessionID
	Epoch   uint64
	Floor   uint64
	Next    uint64 // one above the highest sequence with a record, at least Floor
	Expiry  time.Duration
}

// CloseSession ends a session in order. A repeat is answered StatusOK.
type CloseSession struct {
	Incarnation uint64
	Group       uint32
	Session     uint64
	Epoch       uint64
}

// StatusReply answers requests whose result is a status alone.
type StatusReply struct {
	Status Status
}

// PublishFrame carries independent publishes of one session to one queue; the
// grouping is transport only and has no meaning.
type PublishFrame struct {
	Incarnation uint64
	Group       uint32
	Session     uint64
	Epoch       uint64
	Floor       uint64 // lowest sequence whose outcome is not final for the client; not above any Sequence below
	Queue       string
	Publishes   []Publish
}

// Publish is one message or one atomic batch under one sequence.
type Publish struct {
	Sequence uint64 // from 1
	// After is the newest earlier sequence of this producer that had no final
	// outcome when this copy was sent, 0 for none. Unless After is recorded as
	// stored or is below the floor, the copy is refused StatusOutOfOrder. A sealed
	// After refuses too, since a seal says nothing of what comes before it: name the
	// one before it then.
	After    uint64
	Checksum uint64 // pack.Sum over queue and messages, see PublishChecksum
	Messages []Message
}

// Message is what a producer hands in.
type Message struct {
	Body        []byte
	BizID       string
	Headers     []Header
	OrderingKey string        // messages of one key are handed out one after another; excludes the next three
	Priority    uint8         // 0 to 9, the highest goes first; the same for all messages of a batch
	Delay       time.Duration // from when it is stored; excludes DeliverAt
	DeliverAt   int64         // unix ns
	TTL         time.Duration // how long it may wait, instead of the queue's
}

// Header is one name and value. Names may repeat; order is kept.
type Header struct {
	Name  string
	Value string
}

// PublishReply has a result for each publish of the frame, in its order.
type PublishReply struct {
	Results []PublishResult
}

// PublishResult is what the machine decided about one copy.
type PublishResult struct {
	Sequence  uint64
	Status    Status
	Duplicate bool // Status is StatusOK and an earlier copy had been stored
	Queue     uint64
	Lane      uint8
	Offset    uint64 // of the first message
	Count     uint32
	Outputs   []Position // of an ack-and-publish, instead of the four before
}

// Position is where the messages of one publish begin in a queue.
type Position struct {
	Queue  uint64
	Lane   uint8
	Offset uint64
	Count  uint32
}

// Seal closes sequences for good: a stored one answers its result, one without
// a record is recorded as sealed and every later copy is refused.
type Seal struct {
	Incarnation uint64
	Group       uint32
	Session     uint64
	Epoch       uint64
	Sequences   []uint64
}

// SealReply has the outcomes in the order asked: StatusOK (stored, the result
// is set), StatusSealed or StatusBelowFloor. Status is about the request.
type SealReply struct {
	Status   Status
	Outcomes []PublishResult
}

// Outcome asks what is known of a sequence without changing anything.
type Outcome struct {
	Incarnation uint64
	Group       uint32
	Session     uint64
	Sequence    uint64
}

// OutcomeReply: StatusOK (stored), StatusSealed (never), StatusNotStored (not so
// far, a copy may still arrive), StatusBelowFloor, StatusSessionExpired. Epoch
// is the session's present one, which a Seal needs.
type OutcomeReply struct {
	Result PublishResult
	Epoch  uint64
}

// Attach makes a consumer known, or resumes it. N counts the consumer's
// attachments; a lower one than the present is StatusStale, an equal one is
// answered again. Unsettled lists the delivery numbers that the client holds
// and has no definite answer for; Done is the lowest such number (or the next
// number expected).
type Attach struct {
	Incarnation uint64
	Group       uint32
	Consumer    ConsumerID
	N           uint64
	Queue       string
	Credit      uint32
	Label       string
	Done        uint64
	Unsettled   []Range
}

// Attached answers Attach. States covers every number of Unsettled, in order.
// After it the server sends what the consumer holds and did not list.
type Attached struct {
	Status      Status
	QueueNumber uint64
	LeaseTime   time.Duration
	Next        uint64 // the next delivery number the machine will give
	States      []DeliveryState
}

// DeliveryState is what became of deliveries From..To.
type DeliveryState struct {
	From, To uint64
	State    LeaseState
}

// Leave ends a consumer in order. What it still holds returns to the queue at
// once; NotHandled lists what no handler has seen, for which the attempt counts
// and the failure does not.
type Leave struct {
	Incarnation uint64
	Group       uint32
	Consumer    ConsumerID
	N           uint64
	Done        uint64
	NotHandled  []Range
}

// Settle acks, nacks or extends deliveries. It is valid over any connection,
// since a lease is named by consumer and delivery number.
type Settle struct {
	Incarnation uint64
	Group       uint32
	Consumer    ConsumerID
	Done        uint64 // lowest number without a definite answer
	Items       []SettleItem
}

// SettleItem is one verb for deliveries From..To. Time is the delay of a nack
// (0: the queue's backoff) or the length of an extension from now (0: the
// queue's lease time). Reason is why a nack or reject gives the message back,
// at most ReasonBytesMax bytes; the message keeps the first and the last.
type SettleItem struct {
	From, To uint64
	Verb     SettleVerb
	Time     time.Duration
	Reason   string
}

// SettleReply covers every number asked, in order. Status is StatusOK, or
// StatusConsumerGone when the machine no longer knows the consumer.
type SettleReply struct {
	Status  Status
	Results []DeliveryState
}

// Deliver is pushed to an attached consumer, or to a puller with N 0. A client
// ignores a lower N than that of its present attachment.
type Deliver struct {
	Consumer   ConsumerID
	N          uint64
	Deliveries []Delivery
}

// Receive leases up to Limit messages at once to a puller: a consumer that asks,
// and is not attached. First is the next delivery number that it expects, 1 at
// first; consumer and First name the request: a repeat gets what is still held of
// it, and a late copy, when the puller has gone on since, is StatusStale and leases
// nothing. Without anything to lease it is answered when there is something, at the
// latest after Wait. What was leased is pushed as Deliver (N is 0) over the same
// connection before the answer.
type Receive struct {
	Incarnation uint64
	Group       uint32
	Consumer    ConsumerID
	Queue       string
	Label       string
	First       uint64
	Done        uint64 // lowest number without a definite answer
	Limit       uint32 // 1 to ReceiveMax
	Wait        time.Duration
}

// Release ends a receive whose answer nobody waits for any more: what it leased
// goes back unhandled, and a copy that arrives later is stale.
type Release struct {
	Incarnation uint64
	Group       uint32
	Consumer    ConsumerID
	Queue       string
	First       uint64
	Done        uint64
}

// Received answers Receive and Release. Next is what the puller's next receive
// begins with, also with StatusStale. StatusConsumerGone: the machine does not know
// the puller (any more), another consumer id begins anew.
type Received struct {
	Status      Status
	QueueNumber uint64
	LeaseTime   time.Duration
	Next        uint64
}

// Delivery is one leased message.
type Delivery struct {
	Number      uint64
	Queue       uint64
	Lane        uint8
	Offset      uint64
	Attempt     uint32
	Failures    uint32        // attempts that failed
	Remaining   time.Duration // of the lease, when sent
	PublishedAt int64         // wall clock of the leader that stored it, unix ns; data only
	Message     []byte        // an encoded Message
	Dead        []DeadLetter  // one when it is a dead letter, else none
	Restored    bool          // it was stored before a restore: who has seen it is not known
}

// DeadLetter is what a dead letter has behind it.
type DeadLetter struct {
	Reason, FirstError, LastError string
	OriginQueue                   string
	OriginLane                    uint8
	OriginOffset                  uint64
	OriginAttempts                uint32
}

// Lost is pushed when leases of an attached consumer were taken, or when it was
// removed (Gone).
type Lost struct {
	Consumer ConsumerID
	N        uint64
	Gone     bool
	Lost     []DeliveryState
}

// QueueSettings are the settings of a queue; zero fields take the default.
type QueueSettings struct {
	LeaseTime time.Duration // default 30 s, 1 s to 12 h
	LengthMax uint64        // messages ready, delayed and leased; 0: no limit
	BytesMax  uint64        // bytes of messages not delivered yet, so not of dead letters; 0: no limit
	TTL       time.Duration // how long a message may wait; 0: for ever
	// DeliveryLimit is how many attempts may fail before the message is a dead
	// letter; 0: no limit.
	DeliveryLimit uint32
	// DeadLetter names the queue that takes dead letters. Without one, or when
	// it refuses, they are parked in place.
	DeadLetter string
	// BackoffMin and BackoffMax bound the delay after a nack that names none,
	// which doubles with each failure; default 100 ms and 1 min, a BackoffMin
	// below 0 is none.
	BackoffMin, BackoffMax time.Duration
	// SingleActive hands messages only to the consumer that attached first; the
	// next takes over when it has gone.
	SingleActive bool
}

// QueueCreate creates a queue if absent. With the same settings the answer is
// StatusOK, with others StatusConflict. Deletions is how many queues had ever been
// deleted when the caller decided: when more have, the answer is StatusRevision with
// the present number, so that a late copy does not bring back a queue that was
// deleted since.
type QueueCreate struct {
	Incarnation uint64
	Group       uint32
	Name        string
	Deletions   uint64
	Settings    QueueSettings
}

// QueueDelete deletes by number, so that a late copy cannot meet a queue that
// was created again under the name. A queue that takes the dead letters of
// another is deleted only with Force, else the answer is StatusConflict.
type QueueDelete struct {
	Incarnation uint64
	Group       uint32
	Number      uint64
	Force       bool
}

// QueueUpdate changes the settings of a queue that works. Revision is the
// queue's revision that the caller has seen; a repeat with the same nonce gets
// the same answer.
type QueueUpdate struct {
	Incarnation uint64
	Group       uint32
	Number      uint64
	Revision    uint64
	Nonce       Nonce
	Settings    QueueSettings
}

// QueuePause stops handing out, or resumes it. Leases, delays and times to live
// go on. Revision is the queue's revision that the caller has seen; a repeat with the
// same nonce gets the same answer.
type QueuePause struct {
	Incarnation uint64
	Group       uint32
	Number      uint64
	Revision    uint64
	Nonce       Nonce
	Paused      bool
}

// QueuePurge removes every message. Revision is the queue's revision that the
// caller has seen; a repeat with the same nonce gets the same answer.
type QueuePurge struct {
	Incarnation uint64
	Group       uint32
	Number      uint64
	Revision    uint64
	Nonce       Nonce
}

// QueueReply answers the queue requests. Removed counts messages removed by
// purge or delete, Deletions the queues that were ever deleted. Text names the
// settings that differ, with StatusConflict.
type QueueReply struct {
	Status    Status
	Text      string
	Removed   uint64
	Deletions uint64
	Info      QueueInfo
}

// QueueInfo is what the machine knows of a queue.
type QueueInfo struct {
	Number    uint64
	Name      string
	Revision  uint64
	Paused    bool
	Settings  QueueSettings
	Counts    QueueCounts
	Bytes     uint64        // of messages not delivered yet
	Consumers uint64        // attached or in grace
	OldestAge time.Duration // cluster time since the oldest message still here was stored; 0 when empty
}

// QueueCounts: at each index Stored is the sum of Ready, Leased, Delayed,
// Parked and of the ways to be gone: Acked, Expired, DeadLettered, Deleted,
// Purged, Moved. The Redelivered counts say why messages became ready again.
type QueueCounts struct {
	Stored, Ready, Leased, Delayed, Parked uint64
	Acked                                  uint64
	Expired                                uint64 // too old
	DeadLettered                           uint64 // gone to the dead-letter queue
	Deleted                                uint64 // one by one, by command
	Purged                                 uint64
	Moved                                  uint64 // sent on to another queue by command
	Delivered                              uint64
	RedeliveredExpired                     uint64 // lease ran out
	RedeliveredNacked                      uint64
	RedeliveredGone                        uint64 // consumer gone
	RedeliveredLeft                        uint64 // consumer left in order
	DuplicatesRefused                      uint64 // copies answered from the record
}

// QueueShow asks for one queue by name; the answer is a QueueReply.
type QueueShow struct {
	Name string
}

// QueueList asks for queues in the order of their numbers, from one on; the answer is
// QueuesReply.
type QueueList struct {
	From uint64
}

// QueuesReply is a page of the list. Next is where the next page begins, 0 when this is
// the last.
type QueuesReply struct {
	Queues []QueueInfo
	Next   uint64
}

// NodeStatusRequest asks what the asked node knows of itself, leader or not.
type NodeStatusRequest struct{}

// NodeStatus is local knowledge of one node, at AppliedIndex.
type NodeStatus struct {
	Node          string
	ServerID      string
	Cluster       string
	Incarnation   uint64
	Version       string
	Role          string // leader, follower, candidate, joining
	Leader        string // node name
	Term          uint64
	AppliedIndex  uint64
	CommitIndex   uint64
	LastLogIndex  uint64
	SnapshotIndex uint64
	DigestIndex   uint64 // index of the newest digest entry applied here
	Digest        uint64
	Sessions      uint64
	Consumers     uint64
	Messages      uint64 // ready, leased, delayed, parked
	Uptime        time.Duration
	Serving       bool   // leads and has applied its own first entry
	Disk          string // ok, low (publishes are refused), full (all but what makes room); empty: not on a disk
	DiskFree      uint64 // bytes
	DiskTotal     uint64

	// MachineVersion is that of the queue machine at AppliedIndex, MachineSupports the
	// newest that this node's build knows. Digests are the newest noted by this node since it was
	// started or restored from a snapshot, oldest first.
	MachineVersion  uint32
	MachineSupports uint32
	Digests         []DigestReply

	// FreezeLast and FreezeMax are how long Apply has waited for a snapshot: for
	// the newest, and at most since the start. Transfers are the snapshots on
	// their way from this node and to it, at most TransfersMax.
	FreezeLast time.Duration
	FreezeMax  time.Duration
	Transfers  []SnapshotTransfer

	DiskBallast uint64 // bytes of a file that a full disk gives up

	// BodiesStalled is how long Apply has waited, in all since the start, for bodies
	// to be written: the disk does not keep up with what is published.
	BodiesStalled time.Duration

	// AppendP50 and AppendP99 are how long the newest 1,024 appends to the node's log
	// took until they were durable; 0: there were none, or the log is in memory.
	AppendP50 time.Duration
	AppendP99 time.Duration

	// SnapshotsTaken, SnapshotsReceived from a leader and BodyCompactions of the tables
	// of bodies on disk are counted since the start.
	SnapshotsTaken    uint64
	SnapshotsReceived uint64
	BodyCompactions   uint64

	// SnapshotDamage is what was found damaged in the newest snapshot; empty once a newest
	// one was read through and is whole.
	SnapshotDamage string
}

// SnapshotTransfer is a snapshot on its way to or from a peer.
type SnapshotTransfer struct {
	Peer      string // server id
	Receiving bool   // else it is sent
	Index     uint64
	Bytes     uint64 // so far
	Size      uint64
}

// DigestAt returns the node's value at an index, false when it has none.
func (s NodeStatus) DigestAt(index uint64) (digest uint64, ok bool) {
	for _, d := range s.Digests {
		if d.Index == index {
			return d.Digest, true
		}
	}
	return 0, false
}

// DigestRequest makes the leader put a digest entry into the log. The answer
// is DigestReply with the leader's own value at that index.
type DigestRequest struct{}

// DigestReply is a value at Index: of the leader in an answer, of the node itself
// in its status.
type DigestReply struct {
	Index  uint64
	Digest uint64
}

// MembersRequest asks for the group's members; the answer is Members.
type MembersRequest struct{}

// Members is raft's configuration with what gossip knows of each member.
type Members struct {
	Leader  string
	Index   uint64 // of the entry that made them
	Members []Member
}

// Member is one node.
type Member struct {
	Node     string
	ServerID string
	Address  string
	Voter    bool
	Alive    bool // as gossip sees it from the answering node
	Leader   bool
}

// MemberChange adds (promotes) or removes a node, or hands leadership over
// ("" lets raft choose the target). The verb is the opcode. Seen is the Index of the
// Members that the caller has seen: a node is not added or removed when they have
// changed since, so that a late copy does not remove a node that came back under its
// name. 0: whatever they are.
type MemberChange struct {
	Node string
	Seen uint64
}
