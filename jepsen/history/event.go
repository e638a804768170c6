package history

import (
	"fmt"
	"strconv"
)

// Type says how far an operation has got.
type Type string

// The types.
const (
	Invoke Type = "invoke"
	OK     Type = "ok"
	Fail   Type = "fail" // proved: it had no effect and never will
	Info   Type = "info" // unknown
)

// What an operation does (Event.F).
const (
	Run     = "run"     // the first line: Setup
	Publish = "publish" // one copy, or all copies that the client library made: see Copies
	Kept    = "kept"    // a message is in its producer's outbox: a promise that it will be stored
	Deliver = "deliver" // a message was handed to a consumer
	Ack     = "ack"
	Nack    = "nack"
	Extend  = "extend"
	Nothing = "nothing" // completes a try that proved to have done nothing; Text is what it was
	Look    = "look"    // the outcome of a publish is looked up; ok: Text is stored, sealed, not stored or why nobody can say
	Seal    = "seal"    // ok: Text is stored, sealed or below floor
	Open    = "open"    // a named session is opened or taken over: Session, and when it is ok Epoch
	Attach  = "attach"  // a consumer asks to be attached; Text is the answer
	Leave   = "leave"   // a consumer ends in order
	Die     = "die"     // a consumer was ended without a word
	// Silent is a stretch of time in which a consumer cannot have heard from the
	// cluster.
	Silent = "silent"
	// Stopped is a stretch of time in which the process of a client stood still
	// (SIGSTOP): Seen says that it was looked at and did.
	Stopped = "stopped"
	// Told is how a handler hears, by its context, that its lease is lost: ok, Err is the
	// cause; fail: it knew by other ways, and did not hear it from T0 to T1.
	Told   = "told"
	Status = "status" // what a node said of itself: Node, Life, State
	Counts = "counts" // what the leader said of a queue: Key, Queue
	Drain  = "drain"  // ok: all faults healed and every queue seen empty
	Fault  = "fault"  // Key is its kind, from T0 to T1; Seen says that its effect was observed
	// Held is a stretch in which what Node had sent to clients stood still: what
	// arrived at its end had been sent before.
	Held  = "held"
	Stall = "stall" // the harness itself stood still from T0 to T1
	Plan  = "plan"  // what a mix will try: Text
	Calm  = "calm"  // a stretch without faults, from T0 to T1
	// Frozen is a stretch in which every node stood still: cluster time moves by a
	// second at most.
	Frozen = "frozen"
	// Passed is a moment in which cluster time went on by Delay while nothing depended on
	// it but sessions.
	Passed = "passed"
	Gone   = "gone"   // a consumer hears that the cluster has given it up
	Resent = "resent" // a delivery came once more to a consumer that had said that it has it
	// Admin is a command on a queue: Key, Number, Text is what it is. Listed are the
	// messages it was about, if not all.
	Admin = "admin"
	// Members is what the cluster says of its members: Listed, and who leads: Node.
	Members = "members"
	// A round of a backup that is restored in place, Life is its number: the backup,
	// the restore, a raw copy of a publish (ok: stored, Dup), a message that was there
	// afterwards (Seen: marked as restored), and that nothing else was.
	Backup  = "backup"
	Restore = "restore"
	Copy    = "copy"
	Found   = "found"
	Emptied = "emptied"
	Dead    = "dead"  // a message came out of the dead-letter queue: Key, Seq there; Attempt is how many it had, Text why
	Crash   = "crash" // a node ended by itself: Node, Err, Text (the end of its log)
	// GaveUp is a node that ended by itself as it has to: its disk failed, or what
	// it had kept is damaged.
	GaveUp = "gave-up"
	// Verify is what was found in the files of a node that has ended in order, after the
	// drain: Node; fail: Err is what is wrong with them.
	Verify = "verify"
	// Started is a start of a node: Node, Life.
	Started = "started"
	// Sizes is what a node takes of disk and memory: Node, Life, Sizes.
	Sizes = "sizes"
	// Tidy is the wait for what the nodes keep to shrink when everything is drained. ok:
	// it has.
	Tidy = "tidy"
	// WentOn is a node that did not end although what it asked of its disk failed, or
	// that serves although what it has kept is damaged: Node, Text is what.
	WentOn = "went-on"
)

// What a member is (Item.State).
const (
	Voter   = "voter"
	Joining = "joining"
)

// What a node was when a fault began (Event.Role).
const (
	Leading   = "leader"
	Following = "follower"
)

// What an admin command is (Event.Text).
const (
	Purge          = "purge"
	Delete         = "delete"
	Pause          = "pause"
	Unpause        = "resume"
	DeleteMessages = "delete messages"
	// Redrive sends the dead letters and the parked messages of a queue back to work.
	Redrive = "redrive"
)

// Chained is the text of an ack that publishes an output in the same step. The
// output's id is that of the message, ">", the attempt, and maybe a dot and more.
const Chained = "chained"

// Rejected is the text of a nack that gives a message up, and the reason of its dead
// letter.
const Rejected = "rejected"

// What a look says (Event.Text), and a seal says the first two.
const (
	LookedStored  = "stored"
	LookedSealed  = "sealed"
	LookedNothing = "not stored"
)

// HeldBack is the text of a publish that its outbox holds, since the cluster could
// not judge it.
const HeldBack = "held"

// Item is one delivery, message or member among several that an event is about.
type Item struct {
	ID      string `json:"id"`
	Node    string `json:"node,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	State   string `json:"state,omitempty"` // what the cluster says of it
}

// Event is one line.
type Event struct {
	I    int    `json:"i"`
	Proc string `json:"proc,omitempty"`
	F    string `json:"f"`
	Type Type   `json:"type"`
	T0   int64  `json:"t0"`
	T1   int64  `json:"t1,omitempty"`
	// Of is the line of the invoke that this line completes, -1 when there was
	// none (a delivery comes unasked).
	Of int `json:"of"`

	Client  string `json:"client,omitempty"`
	Node    string `json:"node,omitempty"`
	Key     string `json:"key,omitempty"`    // queue; kind of a fault
	ID      string `json:"id,omitempty"`     // of the message, as the producer made it: run-producer-counter
	Seq     uint64 `json:"seq"`              // offset in its lane
	Lane    int    `json:"lane,omitempty"`   // of its queue, which is its priority
	Number  uint64 `json:"number,omitempty"` // of the queue, where queues are deleted and created again
	Lease   string `json:"lease,omitempty"`  // who holds it under which number
	Attempt int    `json:"attempt,omitempty"`
	Err     string `json:"err,omitempty"`

	// What a publish asks for: its place among those of its ordering key, how long
	// it is kept back (ns), after how long it is too old (ns, by itself or by its
	// queue), and the id whose outcome it waits for (the rule "after"). A nack has a
	// delay too.
	OrderingKey string `json:"ordering_key,omitempty"`
	Delay       int64  `json:"delay,omitempty"`
	TTL         int64  `json:"ttl,omitempty"`
	After       string `json:"after,omitempty"`

	// Of an open, and of a publish of the owner of a named session.
	Session string `json:"session,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`

	Credit int    `json:"credit,omitempty"` // attach: what the consumer holds at most
	Inner  string `json:"inner,omitempty"`  // inner-msg-id
	Dup    bool   `json:"dup,omitempty"`    // publish ok: answered from the record of an earlier copy
	Copies int    `json:"copies,omitempty"` // publish: copies that this operation sent, as far as known
	Hold   int64  `json:"hold,omitempty"`   // deliver, extend: the lease lasts at least so long from T1
	// Carried: of what is handed in, and of what is handed out, all that is to arrive
	// untouched beside the body.
	Carried string `json:"carried,omitempty"`
	// Alive: deliver, and the lease is kept alive for as long as its consumer's process
	// goes on and hears from the cluster.
	Alive bool `json:"alive,omitempty"`
	// Alone: deliver, to a handler of which one is called at a time, so that each says so
	// in the order in which the messages come.
	Alone bool `json:"alone,omitempty"`
	// Hand: deliver, which of its consumer's handlers that run at once took it, counted from
	// 1; 0 when that is not known. A hand takes the next one when it is done with the last.
	Hand int `json:"hand,omitempty"`
	// Patient: publish, which its client is to repeat until it has an answer.
	Patient bool   `json:"patient,omitempty"`
	Life    int    `json:"life,omitempty"` // status: how often the node was started; the round of a backup
	Seen    bool   `json:"seen,omitempty"`
	Role    string `json:"role,omitempty"` // of the one node that a fault is about, as it began: Leading or Following
	Text    string `json:"text,omitempty"`

	Listed []Item `json:"listed,omitempty"`

	Setup *Setup `json:"setup,omitempty"`
	State *State `json:"state,omitempty"`
	Queue *Queue `json:"queue,omitempty"`
	Sizes *Bytes `json:"sizes,omitempty"`
}

// Place is where a message is stored, as far as an event tells it.
type Place struct {
	Number uint64 // of the queue
	Lane   int
	Offset uint64
}

// Place of the message of an event.
func (e *Event) Place() Place { return Place{e.Number, e.Lane, e.Seq} }

// String is the offset alone in the first lane, p3.17 in another.
func (p Place) String() string {
	if p.Lane == 0 {
		return strconv.FormatUint(p.Offset, 10)
	}
	return fmt.Sprintf("p%d.%d", p.Lane, p.Offset)
}

// Setup is what a checker has to know of a run.
type Setup struct {
	Workload string   `json:"workload"`
	Faults   []string `json:"faults,omitempty"`
	// Mix: the faults come by chance, and not each of them has to.
	Mix     bool     `json:"mix,omitempty"`
	LeftOut []string `json:"left_out,omitempty"` // faults that could not be made here, and why
	Network string   `json:"network,omitempty"`  // loopback or network namespaces
	Seed    uint64   `json:"seed"`
	Nodes   int      `json:"nodes"`
	Lease   int64    `json:"lease"` // of the queue, ns
	Grace   int64    `json:"grace"` // of a consumer that is cut off, ns
	// Expiry is after how long an idle session ends, ns; 0: none does within the run.
	Expiry  int64 `json:"expiry,omitempty"`
	Epsilon int64 `json:"epsilon"`
	// ProducerOrder: each process hands in its publishes one after the other, and
	// they must be stored in that order, pipelined or not.
	ProducerOrder bool `json:"producer_order,omitempty"`
	// Limit is how many attempts of a message may fail, 0 for any number. DeadLetters is
	// the queue to which it goes then.
	Limit       int    `json:"limit,omitempty"`
	DeadLetters string `json:"dead_letters,omitempty"`
	// Redriven: dead letters and what is parked are sent back to work, so that a message
	// may move on to places further back in its queue.
	Redriven bool `json:"redriven,omitempty"`
	// Single are the queues with a single active consumer.
	Single []string `json:"single,omitempty"`
	// Older: the nodes began with a build of the first version of the machine, with
	// which a publish overtook what came before a sealed one.
	Older bool `json:"older,omitempty"`
	// Raw: nothing is sealed but what the history says.
	Raw bool `json:"raw,omitempty"`
	// Limits are what disk and memory of a node are judged by; nil: they are not.
	Limits *Limits `json:"limits,omitempty"`
	// Least is what must have happened for a verdict.
	Least Least `json:"least"`
}

// Least is how little may have happened before a run proves nothing.
type Least struct {
	Publishes  int `json:"publishes,omitempty"`   // ok
	Deliveries int `json:"deliveries,omitempty"`  //
	Acks       int `json:"acks,omitempty"`        // ok
	Duplicates int `json:"duplicates,omitempty"`  // publishes answered as duplicate
	Refused    int `json:"refused,omitempty"`     // settles answered "lost"
	Fenced     int `json:"fenced,omitempty"`      // publishes of an owner that was replaced, refused
	Sealed     int `json:"sealed,omitempty"`      // seals answered "sealed": never stored
	Listed     int `json:"listed,omitempty"`      // deliveries that were listed when a consumer resumed
	Commands   int `json:"commands,omitempty"`    // on queues, answered ok
	Rounds     int `json:"rounds,omitempty"`      // of backup and restore, to the end
	Dead       int `json:"dead,omitempty"`        // dead letters
	Moved      int `json:"moved,omitempty"`       // messages that were sent back to work from another queue, as the cluster counts them in the end
	Parked     int `json:"parked,omitempty"`      // messages that were seen parked, at once
	KeysPassed int `json:"keys_passed,omitempty"` // messages handed out behind one of their ordering key that was given up
	KeysMoved  int `json:"keys_moved,omitempty"`  // pairs of one ordering key that were sent back to work one after the other
	Members    int `json:"members,omitempty"`     // answers to who the members are
	Changes    int `json:"changes,omitempty"`     // of the members, between two such answers
	Digests    int `json:"digests,omitempty"`     // indexes at which nodes were compared after the drain
	Expired    int `json:"expired,omitempty"`     // messages too old, as the cluster counts them in the end
	Verified   int `json:"verified,omitempty"`    // nodes whose files were looked at after the drain
	Counted    int `json:"counted,omitempty"`     // queues whose counts were read after the drain
	Sized      int `json:"sized,omitempty"`       // nodes whose disk and memory were measured after the drain
	Stops      int `json:"stops,omitempty"`       // of clients' processes, longer than a lease or the grace time
	CutOff     int `json:"cut_off,omitempty"`     // of those, in which the cluster gave the connection up
	Overtaken  int `json:"overtaken,omitempty"`   // leases that were lost during such a stop, so that others got the message
	Late       int `json:"late,omitempty"`        // settles after such a stop, answered "lost"
	Kept       int `json:"kept,omitempty"`        // settles of what was held throughout a stop, answered ok
	Told       int `json:"told,omitempty"`        // handlers that heard by their context that their lease is lost
	CalmOK     int `json:"calm_ok,omitempty"`     // per cent of publishes in calm stretches
}

// State is what a node says of itself.
type State struct {
	Role        string `json:"role"`
	Leader      string `json:"leader,omitempty"`
	Term        uint64 `json:"term"`
	Applied     uint64 `json:"applied"`
	Commit      uint64 `json:"commit,omitempty"`
	Snapshot    uint64 `json:"snapshot,omitempty"`
	DigestIndex uint64 `json:"digest_index,omitempty"`
	Digest      string `json:"digest,omitempty"`
	Serving     bool   `json:"serving,omitempty"`
}

// Queue is what the cluster counts of a queue. Expired, Nacked, Gone and Left are
// the causes of redelivery; TooOld is gone because nobody came for it in time.
type Queue struct {
	Stored, Ready, Leased, Delayed, Parked, Acked, Purged uint64
	TooOld, DeadLettered, Deleted, Moved                  uint64
	Delivered, Expired, Nacked, Gone, Left, Duplicates    uint64
}

// Bytes is what a node takes. A file with several names counts once, as what comes first
// here.
type Bytes struct {
	Log       uint64 `json:"log"`
	Bodies    uint64 `json:"bodies"`    // live ones
	Snapshots uint64 `json:"snapshots"` // finished and not
	Kept      uint64 `json:"kept"`      // how many those are
	Ballast   uint64 `json:"ballast,omitempty"`
	Rest      uint64 `json:"rest"`
	// Resident is the memory of its process just then, and Peak the most in its life; 0
	// when there is none, or nobody can tell.
	Resident uint64 `json:"resident,omitempty"`
	Peak     uint64 `json:"peak,omitempty"`
}

// Disk is what all files take.
func (b Bytes) Disk() uint64 { return b.Log + b.Bodies + b.Snapshots + b.Ballast + b.Rest }

// Limits are settings of the nodes, as onceq server was given them.
type Limits struct {
	Log    uint64 `json:"log"`              // --log-bytes
	Bodies uint64 `json:"bodies"`           // --body-memory
	Memory bool   `json:"memory,omitempty"` // the build is one whose memory can be judged
}
