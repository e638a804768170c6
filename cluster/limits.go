package cluster

import "time"

// Every buffer of the node has its limit here or in the package that owns it.
const (
	groupNumber = 1 // the one group there is
	membersMax  = 9

	// entryBytesMax bounds one raft entry; entryBytesGoal is where an open
	// entry is closed to further commands. Entries well below the maximum keep
	// one fsync short and let replication overlap with the next write, and a follower
	// decodes them in two pieces (go-msgpack takes memory 256 KiB at a time, and copies).
	entryBytesMax  = 4 << 20
	entryBytesGoal = 512 << 10
	// entryBytesWorth is from which size on an entry is worth to be written while
	// another is under way, instead of collecting more until that is applied.
	entryBytesWorth = 16 << 10

	// What may wait or be in flight in each lane, payloads plus waiterBytes for
	// each request. Settles have memory of their own, so that publishes cannot
	// keep out the acks that would make room for them.
	publishLaneBytesMax = 64 << 20
	settleLaneBytesMax  = 32 << 20
	waiterBytes         = 256

	// Batches of one lane that may be in flight. Beyond, requests collect in the open
	// batch.
	publishLaneInFlight = 4
	settleLaneInFlight  = 2

	// batchCommandsMax bounds the commands that an entry takes of one lane.
	batchCommandsMax = 65_536

	// proposeTimeout bounds how long a proposal waits for raft's main loop.
	// Past it nothing was appended.
	proposeTimeout = 10 * time.Second

	readsMax = 16_384 // look-ups waiting at the leader
	// redrivesMax bounds the steps of redrives that are under way, each of which has a
	// goroutine and may read some MiB of bodies.
	redrivesMax = 4
	// receivesMax bounds the receives without an answer, most of which wait for
	// something to lease.
	receivesMax = 16_384

	// membershipRequestsMax bounds the requests to change the membership that
	// are under way, each of which has a goroutine.
	membershipRequestsMax = 16

	// backupsMax bounds the backups that a node makes at once; each holds the
	// machine's tables once more. backupPartsAhead parts of one wait for the
	// client, half a megabyte each or one message.
	backupsMax       = 2
	backupPartsAhead = 4
	backupReadsMax   = 16 // unanswered reads of one backup
	backupIdleMax    = time.Minute
	// backupBehindMax is how long a node that is behind may take to apply what its
	// backup is to have. A follower is asked first: one that is cut off from the others
	// would keep the client, and one of the backups above, for as long as it is.
	backupBehindMax = 5 * time.Second
	snapshotTries   = 10

	// transferIdleMax is how long a snapshot on its way may stand still. raft reads one
	// to its end before it looks at anything else, so a follower whose leader has fallen
	// silent in the middle would neither vote nor listen to the next leader; the
	// library's own limit goes by the size, and may be hours.
	transferIdleMax = 30 * time.Second

	// publishWindow is how many bytes of unanswered publishes a connection may
	// have.
	publishWindow = 8 << 20

	// deliverFrameBytes is about how much of a consumer's deliveries is read
	// from storage at once, when its connection can take more.
	deliverFrameBytes = 256 << 10
	// deliveryBytesHint is what a delivery is guessed to take in a frame.
	deliveryBytesHint = 256
	// deliverFrameMessagesMax bounds the deliveries of one frame.
	deliverFrameMessagesMax = 1_024
)
