package fsm

import "time"

// Limits are the machine's caps. They bound what one entry, one client or all
// clients together can make the machine hold. They must be the same on every
// node of a cluster, since Apply judges by them.
type Limits struct {
	BodyBytesMax     int    // of one message body; default 1 MiB
	SessionsMax      int    // open sessions; at the cap opening is refused; default 1,000,000
	OutcomesMax      int    // outcomes kept over all sessions; at the cap new publishes are refused; default 16 million
	SealsMax         int    // outcomes beyond OutcomesMax that seals may make; at that cap only the sequence at a session's floor can be sealed; default 2 million
	SessionBytesMax  int64  // of sessions and outcomes with the sizes below; at the cap opening and new publishes are refused; default 3 GiB
	ConsumersMax     int    // default 100,000
	LeasesMax        int    // deliveries over all consumers that are held, or whose outcome the consumer has not said to know; at the cap nothing is handed out; default 8 million
	QueuesMax        int    // default 100,000
	CreditMax        uint32 // messages a consumer may hold; default 65,536
	TimerBudget      int    // messages and table rows that timers of one entry may change, one timer half of them at a time; default 4,096
	AssignmentBudget int    // leases that one entry may make; default 16,384
	PassBudget       int    // records that the heads of queues may pass in one entry; default 16,384
	AnswerBudget     int    // delivery numbers that the commands of one entry may go over, of an edit of leased messages those of their queue; the command that would be beyond it is refused as busy; default 262,144
	IndexedMax       int    // messages with a record of their own: keyed, delayed, with a time to live, returned, parked, dead letters; at the cap new ones, and edits that need one, are refused; default 8 million
	RestoreTablesMax int64  // bytes of the tables of a restore that is under way; at the cap it is refused as too large; default 8 GiB
	GoneRangesMax    int    // ranges of places ahead of a lane's head whose messages are gone, 20 to 120 bytes each, at most one for each message that is left between them; at the cap new messages that could leave one, and edits of messages without a record that would, are refused. What is there already, and dead letters, may leave theirs beyond it; default 8 million
	NotesBytesMax    int64  // of the texts that failed messages remember, the first and last error and those of the newest events, each where it is named; at the cap the next are remembered without text; default 1 GiB
	ReturnsMax       int    // records beyond IndexedMax for messages that come back: a message without one is handed out only while there is room for its return; default 1 million
}

// DefaultLimits returns the limits that a cluster runs with.
func DefaultLimits() Limits {
	return Limits{
		BodyBytesMax:     1 << 20,
		SessionsMax:      1_000_000,
		OutcomesMax:      16_000_000,
		SealsMax:         2_000_000,
		SessionBytesMax:  3 << 30,
		ConsumersMax:     100_000,
		LeasesMax:        8_000_000,
		QueuesMax:        100_000,
		CreditMax:        65_536,
		TimerBudget:      4_096,
		AssignmentBudget: 16_384,
		PassBudget:       16_384,
		AnswerBudget:     262_144,
		IndexedMax:       8_000_000,
		RestoreTablesMax: 8 << 30,
		GoneRangesMax:    8_000_000,
		NotesBytesMax:    1 << 30,
		ReturnsMax:       1_000_000,
	}
}

// withDefaults fills the zero fields.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	fill := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	fill(&l.BodyBytesMax, d.BodyBytesMax)
	fill(&l.SessionsMax, d.SessionsMax)
	fill(&l.OutcomesMax, d.OutcomesMax)
	fill(&l.SealsMax, d.SealsMax)
	fill(&l.ConsumersMax, d.ConsumersMax)
	fill(&l.LeasesMax, d.LeasesMax)
	fill(&l.QueuesMax, d.QueuesMax)
	fill(&l.TimerBudget, d.TimerBudget)
	fill(&l.AssignmentBudget, d.AssignmentBudget)
	fill(&l.PassBudget, d.PassBudget)
	fill(&l.AnswerBudget, d.AnswerBudget)
	fill(&l.IndexedMax, d.IndexedMax)
	fill(&l.GoneRangesMax, d.GoneRangesMax)
	fill(&l.ReturnsMax, d.ReturnsMax)
	if l.CreditMax == 0 {
		l.CreditMax = d.CreditMax
	}
	if l.SessionBytesMax == 0 {
		l.SessionBytesMax = d.SessionBytesMax
	}
	if l.NotesBytesMax == 0 {
		l.NotesBytesMax = d.NotesBytesMax
	}
	if l.RestoreTablesMax == 0 {
		l.RestoreTablesMax = d.RestoreTablesMax
	}
	return l
}

// What the tables need in memory, about, as it counts against SessionBytesMax.
const (
	SessionBytes  = 448 // beside its name and label
	OutcomeBytes  = 128
	PositionBytes = 32 // of an ack-and-publish, each
)

// Limits of the encodings. The wire package has equal ones; a test compares.
const (
	PayloadBytesMax       = 8 << 20
	EntryBytesMax         = 8 << 20
	EntryCommandsMax      = 1 << 20
	PublishesPerFrameMax  = 65_536
	MessagesPerPublishMax = 16_384
	HeadersMax            = 64
	HeaderNameBytesMax    = 256
	HeaderValueBytesMax   = 64 << 10
	BizIDBytesMax         = 512
	OrderingKeyBytesMax   = 512
	QueueNameBytesMax     = 255
	SessionNameBytesMax   = 255
	LabelBytesMax         = 255
	SealSequencesMax      = 65_536
	RangesMax             = 65_536
	SettleNumbersMax      = 131_072
	SessionWindow         = 65_536 // sequences from the floor up
	milestoneMessagesMax  = 4_096
	milestoneInterval     = Time(time.Second)
	LeaseTimeMin          = time.Second
	LeaseTimeMax          = 12 * time.Hour
	LeaseTimeDefault      = 30 * time.Second
	NackDelayMax          = 24 * time.Hour
	DelayMax              = 365 * 24 * time.Hour // of a delay, a deliver-at from now, and a time to live
	BackoffMinDefault     = 100 * time.Millisecond
	BackoffMaxDefault     = time.Minute
	ReasonBytesMax        = 256 // of a nack or reject; the client library cuts
	EditPlacesMax         = 4_096
	AckPublishQueuesMax   = 64
	RestoreBytesMax       = 2 << 20 // of one chunk of a backup, when it is not a single message
	ClusterBytesMax       = 128
	livesMax              = 16 // remembered; copies from before are refused as from elsewhere
	Priorities            = 10 // 0 to 9; 9 goes first
	eventsMax             = 8  // kept for each message that failed
	// DoneSlack is how far beyond twice its credit a consumer's numbers may go
	// above done, so that one slow handler does not soon hold up the others.
	DoneSlack = 1024
	// ReceiveMax is how many messages one receive may ask for, PullNumbersMax how
	// many delivery numbers a puller may leave without an answer.
	ReceiveMax              = 1_000
	PullNumbersMax          = 65_536
	ReceiveWaitMax          = time.Minute      // of a receive at the leader; the machine does not wait
	GraceTime               = 10 * time.Second // a detached consumer keeps its leases at least this long
	GraceHoldsMax           = 6                // how often a term may prolong the grace of all
	SessionExpiry           = 72 * time.Hour   // of an idle unnamed session, in cluster time
	TermNodeBytesMax        = 255
	messageFields           = 8
	unlimited               = 0
	sessionActivityInterval = Time(SessionExpiry) / 10
)
