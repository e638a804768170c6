package wire

import (
	"maps"
	"slices"
)

// Explanation is what a person should know about an error code. Retriable says
// that the same request may succeed later or elsewhere, without anything being
// changed by whoever made it.
type Explanation struct {
	Name      string
	What      string // what happened, and what did not
	Why       string // how it comes to that
	Do        string // what to do about it
	Retriable bool
}

// Explain returns the explanation of a code, and whether there is one.
func Explain(c Code) (Explanation, bool) {
	ex, ok := explanations[c]
	return ex, ok
}

// Codes returns all error codes, ascending.
func Codes() []Code { return slices.Sorted(maps.Keys(explanations)) }

var explanations = map[Code]Explanation{
	CodeUnreachable: {
		Name:      "no node reachable",
		What:      "The client could not connect to any node of the cluster. The request was not sent.",
		Why:       "The addresses are wrong, the nodes are not running, or the network or a firewall is between.",
		Do:        "Check the addresses in the URL, and on the nodes `onceq status`. The client keeps trying until your context ends.",
		Retriable: true,
	},
	CodeNotLeader: {
		Name:      "not the leader",
		What:      "The node that was asked does not lead the group. Nothing was written.",
		Why:       "Leadership has moved, and the client had not heard of it yet.",
		Do:        "Nothing: the client library asks the leader named in the answer. If you see this often, look for elections in the nodes' logs.",
		Retriable: true,
	},
	CodeNoLeader: {
		Name:      "no leader",
		What:      "The group has no leader at the moment. Nothing was written.",
		Why:       "An election is going on (it takes about a second), or fewer than a majority of the nodes are alive and can reach one another.",
		Do:        "Wait: the client retries. If it stays so, run `onceq status` on each node and bring back a majority.",
		Retriable: true,
	},
	CodeOverloaded: {
		Name:      "overloaded",
		What:      "The node has as many requests waiting as it allows, or the request asks for more work than fits beside the others that came with it. Nothing was done.",
		Why:       "More comes in than disks and network of a majority take. One slow disk in a majority is enough.",
		Do:        "The client retries with growing pauses. If it lasts, look for a slow disk or a slow node, or publish with fewer in flight.",
		Retriable: true,
	},
	CodeOutcomeUnknown: {
		Name:      "outcome unknown",
		What:      "The request may have been carried out or not; the answer was lost.",
		Why:       "Leadership or the connection was lost, or your context ended, while the request was under way.",
		Do:        "Publishing: publishing it anew would be another message. Ask with `onceq outcome INNER-MSG-ID`, or let the client seal it, which ends in stored or never. The client library's own retries are safe: they carry the same inner-msg-id.",
		Retriable: true,
	},
	CodeShuttingDown: {
		Name:      "shutting down",
		What:      "The node is about to stop and takes no new requests. Nothing was written.",
		Why:       "It was told to stop, as in a rolling restart.",
		Do:        "Nothing: the client goes to another node.",
		Retriable: true,
	},
	CodeWrongCluster: {
		Name: "wrong cluster",
		What: "The client expects another cluster, or the same one before a restore. Nothing was written.",
		Why:  "The address leads to a node of another cluster, or the cluster was restored from a backup, so that ids from before mean nothing in it.",
		Do:   "Check the addresses. After a restore start the client anew: it opens new sessions. What was published after the backup was taken must be published again.",
	},
	CodeWrongGroup: {
		Name:      "wrong group",
		What:      "The request names a raft group that this node does not have. Nothing was written.",
		Why:       "The client's picture of which group holds the queue is old, or it is newer than the node.",
		Do:        "Nothing: the client learns the topology and retries. If it stays so, the client is of a later version than the cluster.",
		Retriable: true,
	},
	CodeSessionExpired: {
		Name: "session expired",
		What: "The cluster does not know the session any more, so it cannot tell whether this message was stored before. It was not stored now.",
		Why:  "The producer was idle or cut off for longer than the session's expiry (72 h of cluster time unless set), or the session was closed.",
		Do:   "The messages whose results you have are safe. Of those without a result it cannot be said; the library reports them. Open a new producer; a named session with an outbox does not expire.",
	},
	CodeFenced: {
		Name: "fenced",
		What: "A newer process has opened this named session. This process may not publish under it any more; the message was not stored.",
		Why:  "Two processes use the same session name: a restart while the old one lives, or a name given twice.",
		Do:   "Let the older process end. If both should live, give each its own session name.",
	},
	CodeBelowFloor: {
		Name: "below the floor",
		What: "This copy of the message was not stored and never will be. It is not said whether an earlier copy was.",
		Why:  "A copy came so late that the producer had already settled the outcome of its sequence. As a rule it is a copy that lingered in the network.",
		Do:   "Nothing, when the producer has its result. If a producer sees this as its result, the sequence was given up twice: please report it.",
	},
	CodeWindowFull: {
		Name:      "window full",
		What:      "The sequence is more than 65,536 ahead of the oldest one without a final outcome. The message was not stored.",
		Why:       "One old publish is stuck while many later ones were made.",
		Do:        "The client library waits by itself. Lower the number in flight if you send by hand.",
		Retriable: true,
	},
	CodeSealed: {
		Name: "sealed",
		What: "The sequence was given up before it was stored: the message is not in the queue and never will be.",
		Why:  "The producer (or its successor under the same name) sealed it since it wanted to be certain.",
		Do:   "Publish it again if it is still wanted: that is a new message.",
	},
	CodeBodyDiffers: {
		Name: "body differs",
		What: "The sequence has been used for another message. This one was not stored, the earlier one is untouched.",
		Why:  "Two producers share one session, a restored client repeats sequences, or memory was damaged.",
		Do:   "Give each producer its own session. With an outbox, never copy its file to a second process.",
	},
	CodeOutOfOrder: {
		Name:      "out of order",
		What:      "An earlier message of this producer has not been stored yet. This copy was not stored, so that order is kept.",
		Why:       "An earlier frame was refused or is under way over another connection.",
		Do:        "Nothing: the client sends both again, in order. Who speaks the protocol by hand names the one before it when the one named was sealed.",
		Retriable: true,
	},
	CodeDiskFull: {
		Name:      "disk almost full",
		What:      "A node that votes has little room left on its disk. The message was not stored.",
		Why:       "Backlogs have grown, or something else fills the file system. Publishes are refused early, so that acks, which make room, can still be written.",
		Do:        "Consume or purge what is queued, or give the node more room; `onceq status` shows each node's disk. Publishing again is safe.",
		Retriable: true,
	},
	CodeQueueFull: {
		Name:      "queue full",
		What:      "The queue has reached its limit of messages or bytes. The message was not stored.",
		Why:       "Consumers are slower than producers, or there are none.",
		Do:        "Add consumers or raise the queue's limit; look at `onceq queue show QUEUE`. Publishing again is safe.",
		Retriable: true,
	},
	CodeTooLarge: {
		Name: "too large",
		What: "The message or batch is over a limit. It was not stored.",
		Why:  "A body is larger than the cluster allows (1 MiB unless set), a header, a biz-id or the whole batch is too long.",
		Do:   "Send less: put large data elsewhere and publish where it is, or split the batch. The text says which limit it was.",
	},
	CodeNoQueue: {
		Name: "no such queue",
		What: "There is no queue of this name. Nothing was written.",
		Why:  "It was never created, it was deleted, or the name is misspelt. Names are case-sensitive.",
		Do:   "`onceq queue ls` shows what there is, `onceq queue create NAME` makes one.",
	},
	CodeSessionCap: {
		Name:      "too many sessions",
		What:      "The group has as many sessions as it allows. No session was opened; open ones are untouched.",
		Why:       "Producers are made and thrown away (one for each message, say) and their sessions have not expired yet.",
		Do:        "Make one producer for each process and queue, keep it, and close it at the end.",
		Retriable: true,
	},
	CodeOutcomeCap: {
		Name:      "too many open outcomes",
		What:      "The group keeps as many results as it allows for producers that have not settled them. The message was not stored.",
		Why:       "Very many producers have very much in flight, or a client never raises its floor. Outcomes are counted, and their bytes together with those of sessions; seals have some room beyond, and the one that a session's floor waits for always has.",
		Do:        "Publish with less in flight. Waiting helps, since producers settle what they get answers for.",
		Retriable: true,
	},
	CodeEpochMismatch: {
		Name: "epoch mismatch",
		What: "The named session has been opened by somebody else since. It was not opened now.",
		Why:  "Two processes open the same session name at once, or an outbox from an older copy is in use.",
		Do:   "Let only one process use the name. The producer tells the present epoch; open with it if you are sure to be the rightful owner.",
	},
	CodeChecksum: {
		Name:      "checksum mismatch",
		What:      "The message does not match its own checksum. It was not stored.",
		Why:       "It was damaged on the way or in memory, or a client computes the checksum in another way.",
		Do:        "The client library sends it again. If it repeats, test the memory of the client's machine and of the node that answered.",
		Retriable: true,
	},
	CodeNotStored: {
		Name: "not stored so far",
		What: "The cluster has no record of the message. A copy that is still under way may yet be stored.",
		Why:  "The publish has not arrived, or was refused.",
		Do:   "Seal it to know for certain (`onceq outcome --seal INNER-MSG-ID`), or let the producer go on trying.",
	},
	CodeIndexCap: {
		Name:      "too many indexed messages",
		What:      "The group holds as many messages with a record of their own as it allows, or has as many gaps in queues that nobody reads. The message was not stored.",
		Why:       "Messages with an ordering key, a delay or a time to live, returned messages, parked messages and dead letters take memory each; all others do not. Where returned ones have no room left either, only they are handed out. A gap is what expires or is deleted between messages that stay, behind one that nobody has read.",
		Do:        "Consume, delete or purge such messages (`onceq queue ls` shows where they are), consume the oldest of a queue that nobody reads, or publish without these options. Publishing again is safe.",
		Retriable: true,
	},
	CodeBadOptions: {
		Name: "options exclude each other",
		What: "The options of the message do not go together, or one is out of range; or messages were to go to the queue that they are in. Nothing was stored or moved.",
		Why:  "An ordering key keeps messages in the order in which they were stored, so it excludes priority, delay and deliver-at; delay excludes deliver-at; a batch has one priority. A redrive or a move names another queue.",
		Do:   "Leave one of the options away, or name another queue. The text says which, the README has the table of options.",
	},
	CodeRestored: {
		Name: "restored: cannot be judged",
		What: "The message was first sent before the cluster was restored from a backup, and the backup has no record of it. This copy was not stored. Whether an earlier one was, and was delivered, before the restore, nobody can tell any more.",
		Why:  "It was stored after the backup was taken, or never. Stored now it could be there twice, so the cluster refuses it.",
		Do:   "Find out by its biz-id whether its work was done, and publish it again if not: that is a new message. The client library goes on by itself with what was never sent.",
	},
	CodeLeaseLost: {
		Name: "lease lost",
		What: "The message is no longer held by this consumer. The ack, nack or extension had no effect; somebody else may be working on the message.",
		Why:  "The lease ran out before it was extended, the queue was purged or deleted, the lease was released by command, or the consumer was given up meanwhile. The text says which.",
		Do:   "Stop working on it, or make sure by biz-id (the inbox does) that doing it twice is harmless. For long work use auto-extension or a longer lease time.",
	},
	CodeConsumerGone: {
		Name: "consumer gone",
		What: "The cluster has given the consumer up; what it held went back to the queue. Nothing was settled.",
		Why:  "It was cut off for longer than the grace time (10 s), or its process stood still.",
		Do:   "The client attaches as a new consumer. Look for long pauses of the process or the network.",
	},
	CodeStale: {
		Name: "stale attachment",
		What: "The request belongs to an older attachment of this consumer and had no effect.",
		Why:  "The client has attached again since, over another connection.",
		Do:   "Nothing: the newer attachment is the one that counts.",
	},
	CodeConsumerCap: {
		Name:      "too many consumers",
		What:      "The group has as many consumers as it allows. The consumer was not attached.",
		Why:       "Consumers are started and dropped faster than the grace time returns them, or there are really that many.",
		Do:        "Run fewer consumers with a larger prefetch each.",
		Retriable: true,
	},
	CodeLeaseCap: {
		Name:      "too many leases",
		What:      "The group's consumers hold as many deliveries as it allows, those counted that were settled and whose answer no consumer has said to know. Nothing was done.",
		Why:       "Consumers take more than they settle, or settle and never tell the cluster that they heard the answers. While it lasts no message is handed out.",
		Do:        "Let consumers settle what they hold, run fewer of them or give them a smaller prefetch. `onceq queue consumers` shows who holds how many.",
		Retriable: true,
	},
	CodeConflict: {
		Name: "conflict",
		What: "The queue exists with other settings, or another queue needs it. Nothing was changed.",
		Why:  "Two programs create the same queue in different ways, or a queue that takes the dead letters of another was to be deleted. The text says which.",
		Do:   "Agree on the settings, use another name, change the settings with `onceq queue update`, or delete with --force.",
	},
	CodeQueueCap: {
		Name: "too many queues",
		What: "The group has as many queues as it allows. The queue was not created.",
		Why:  "Queues are made for single users or requests and not deleted.",
		Do:   "Delete queues that are not used any more; use one queue with biz-ids or headers where you now use many.",
	},
	CodeBadName: {
		Name: "bad name",
		What: "The name is not allowed. Nothing was written.",
		Why:  "A queue's name has 1 to 255 characters of A-Z, a-z, 0-9, dot, underscore and hyphen.",
		Do:   "Choose another name.",
	},
	CodeRevision: {
		Name: "revision has changed",
		What: "The queue was changed since you looked at it. Nothing was removed.",
		Why:  "Somebody else purged it or changed its settings in between; or it was deleted and created again.",
		Do:   "Look at it again (`onceq queue show`) and repeat the command if it is still what you want.",
	},
	CodeMembership: {
		Name: "membership change refused",
		What: "The cluster's membership was not changed.",
		Why:  "Another change is going on, or the change would leave less than a majority of the members alive.",
		Do:   "Wait for the other change, bring dead nodes back first, then repeat. `onceq cluster members` shows who is alive.",
	},
	CodeNoNode: {
		Name: "no such node",
		What: "No node of this name is known. Nothing was changed.",
		Why:  "The name is misspelt, or the node has not joined the gossip yet.",
		Do:   "`onceq cluster members` shows the names. Start the node with --join first.",
	},
	CodeNotEmpty: {
		Name: "the cluster is not empty",
		What: "A backup was not restored, because the cluster has queues. Nothing was changed.",
		Why:  "A restore puts the content of the backup in the place of everything that is in the cluster.",
		Do:   "Restore into a new cluster. If what is here may be lost, `onceq restore --force FILE`; take a backup of it first.",
	},
	CodeRestoreStale: {
		Name: "another restore",
		What: "This restore does not go on. The cluster is as it was before it.",
		Why:  "Another restore is under way or has been left unfinished, or somebody has replaced this one by another.",
		Do:   "If nobody else is restoring, `onceq restore --replace FILE` takes the place of the unfinished one.",
	},
	CodeBadBackup: {
		Name: "bad backup",
		What: "The file is not a backup, is damaged or cut short, or is of a version that this build does not know. Nothing was changed in the cluster.",
		Why:  "Another file was named, it was not copied whole, or its disk has changed it. The text says what is wrong and where.",
		Do:   "Use another copy. `onceq backup verify FILE` reads a whole file and says whether it can be restored.",
	},
	CodeBackup: {
		Name:      "backup failed",
		What:      "The node could not make the backup, or stopped in the middle. No file was left under the name that was given.",
		Why:       "The node ended, lost its connection, is behind the others, has no room for a snapshot, or makes as many backups as it may at once.",
		Do:        "Run it again; the client asks another node. The text says what was wrong.",
		Retriable: true,
	},
	CodeBadSettings: {
		Name: "bad settings of a queue",
		What: "The settings of the queue do not go together, or one is out of range. The queue was not created or changed.",
		Why:  "A lease time is from 1s to 12h, times to live and backoffs have a longest value, a backoff begins with no more than its longest delay, and a queue is not its own dead-letter queue. The text says which it is.",
		Do:   "Change that setting. `onceq queue create --help` has the ranges.",
	},
	CodeMalformed: {
		Name: "malformed",
		What: "The bytes are not what the protocol says. Nothing was written; if the frame itself was bad the connection was closed.",
		Why:  "A client with a bug, something that is no onceq client, or damage on the way.",
		Do:   "Check what connects to the port. If it is our client library, please report it with the text.",
	},
	CodeUnsupportedVersion: {
		Name: "unsupported protocol version",
		What: "Client and server share no version of the protocol. The connection was closed, nothing was written.",
		Why:  "One of them is much newer than the other.",
		Do:   "Upgrade the older one. The text says which versions the server speaks.",
	},
	CodeFrameTooLarge: {
		Name: "frame too large",
		What: "A frame is larger than 8 MiB, or the first one larger than 4 KiB. The connection was closed.",
		Why:  "The sender ignores the limit that it was told, or is no onceq client.",
		Do:   "Send smaller batches. Our client library splits by itself.",
	},
	CodeFlowControl: {
		Name:      "flow control violated",
		What:      "The client sent more unanswered publishes or requests than it was allowed. The connection was closed; what was under way may have been carried out.",
		Why:       "A client that does not keep count of the window that the server names when it connects.",
		Do:        "Our client library keeps count; a client of your own must. Reconnecting and sending again under the same inner-msg-ids is safe.",
		Retriable: true,
	},
	CodeSlowReader: {
		Name:      "slow reader",
		What:      "The client did not read what it was sent. The connection was closed; leases live on for the grace time.",
		Why:       "A process that stands still or is starved, a handler that blocks the reader, or a network that is too slow for the traffic.",
		Do:        "Nothing if it was once: the client reconnects. Else look at the client's CPU, memory and garbage collection, or lower the prefetch.",
		Retriable: true,
	},
	CodeUnknownOp: {
		Name: "unknown operation",
		What: "The server does not know this kind of request. Nothing was written.",
		Why:  "The client is newer than the server.",
		Do:   "Upgrade the nodes.",
	},
	CodeUnsupported: {
		Name: "unsupported",
		What: "The request asks for something this cluster cannot do yet. Nothing was written.",
		Why:  "The feature is not in the version that the cluster's machine runs at.",
		Do:   "Leave the field away, or upgrade all nodes.",
	},
	CodeInternal: {
		Name:      "internal error",
		What:      "The server ran into something it did not expect. Whether the request was carried out is not known.",
		Why:       "A bug, or trouble of the machine that has no code of its own.",
		Do:        "Read the node's log at this time and please report it. Publishes are safe to retry through the client library.",
		Retriable: true,
	},
}
