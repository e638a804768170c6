package wire

// Op says what a frame is. Values are on the wire and only ever appended to.
type Op uint8

const (
	OpHello    Op = 1 // Hello -> Welcome
	OpPing     Op = 2 // empty -> empty
	OpTopology Op = 3 // pushed by the server
	OpError    Op = 4 // ErrorReply, to any request

	OpOpenSession  Op = 16 // OpenSession -> SessionOpened
	OpCloseSession Op = 17 // CloseSession -> StatusReply
	OpPublish      Op = 18 // PublishFrame -> PublishReply
	OpSeal         Op = 19 // Seal -> SealReply
	OpAttach       Op = 20 // Attach -> Attached
	OpLeave        Op = 21 // Leave -> StatusReply
	OpSettle       Op = 22 // Settle -> SettleReply
	OpQueueCreate  Op = 23 // QueueCreate -> QueueReply
	OpQueueDelete  Op = 24 // QueueDelete -> QueueReply
	OpQueuePurge   Op = 25 // QueuePurge -> QueueReply
	OpQueueUpdate  Op = 26 // QueueUpdate -> QueueReply
	OpQueuePause   Op = 27 // QueuePause -> QueueReply
	OpEdit         Op = 28 // Edit -> EditReply
	OpAckPublish   Op = 29 // AckPublish -> PublishReply
	OpRestoreBegin Op = 32 // RestoreBegin -> RestoreReply
	OpRestoreChunk Op = 33 // RestoreChunk -> RestoreReply
	OpRestoreEnd   Op = 34 // RestoreEnd -> RestoreReply

	OpReceive Op = 30 // Receive -> deliveries pushed, then Received
	OpRelease Op = 31 // Release -> Received

	OpOutcome     Op = 48 // Outcome -> OutcomeReply
	OpQueueShow   Op = 49 // QueueShow -> QueueReply
	OpQueueList   Op = 50 // QueueList -> QueuesReply
	OpPeek        Op = 51 // Peek -> PeekReply
	OpMessageShow Op = 52 // MessageShow -> PeekReply
	OpConsumers   Op = 53 // ConsumersRequest -> ConsumersReply
	OpSessions    Op = 54 // SessionsRequest -> SessionsReply
	OpRedrive     Op = 55 // Redrive -> RedriveReply

	OpDeliver Op = 64 // pushed
	OpLost    Op = 65 // pushed

	OpNodeStatus     Op = 80 // NodeStatusRequest -> NodeStatus
	OpDigest         Op = 81 // DigestRequest -> DigestReply
	OpMembers        Op = 82 // MembersRequest -> Members
	OpMemberAdd      Op = 83 // MemberChange -> StatusReply
	OpMemberRemove   Op = 84 // MemberChange -> StatusReply
	OpMemberTransfer Op = 85 // MemberChange -> StatusReply

	OpCommitted  Op = 96 // CommittedRequest -> Committed
	OpBackupOpen Op = 97 // BackupOpen -> BackupHead
	OpBackupRead Op = 98 // BackupRead -> BackupPart
)
