package outbox

import (
	"fmt"
	"time"

	"onceq/client"
)

// Number names an entry: one publish, in the order in which they were taken. It is
// never used again in its file.
type Number uint64

// State is where an entry is.
type State uint8

// The states of an entry. They are on disk.
const (
	Waiting State = 1 // no copy was ever sent
	Sent    State = 2 // a copy may have been sent; it is repeated until there is an outcome
	Held    State = 3 // the outcome cannot be known, or is a refusal for good: somebody has to decide
)

func (s State) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Sent:
		return "sent"
	case Held:
		return "held"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Reason is why an entry is held. They are on disk.
type Reason uint8

// The reasons.
const (
	SessionLost Reason = 1 // the cluster does not know the session any more: it was ended by command
	OtherLife   Reason = 2 // the cluster was restored from a backup since
	BelowFloor  Reason = 3 // somebody else used the session and went past the entry: a copy of the file
	Refused     Reason = 4 // the cluster will never take it: not stored
)

func (r Reason) String() string {
	switch r {
	case SessionLost:
		return "session expired"
	case OtherLife:
		return "restored: cannot be judged"
	case BelowFloor:
		return "below floor"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MayBeStored says whether an entry that is held for this reason may be in its
// queue, or may have been.
func (r Reason) MayBeStored() bool { return r != Refused }

// Entry is one publish that has no final outcome yet.
type Entry struct {
	Number    Number
	State     State
	Published time.Time // by this machine's clock
	Messages  []client.Message
	Bytes     int // in the file
	// ID is under which it was sent last, the zero value when it never was.
	ID     client.InnerMsgID
	Reason Reason // when Held
	Text   string // what the cluster said, when Held
	HeldAt time.Time
}

// HeldError says that an entry is held. It stays in the outbox until somebody
// decides, see Resend and Discard.
type HeldError struct {
	Number Number
	ID     client.InnerMsgID
	Reason Reason
	Text   string
}

func (e *HeldError) Error() string {
	fate := "it may be stored or not"
	if !e.Reason.MayBeStored() {
		fate = "it is not stored"
	}
	s := fmt.Sprintf("outbox: entry %d is held: %s: %s: resend or discard it", e.Number, e.Reason, fate)
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Risk is what whoever decides about a held entry takes upon himself.
type Risk uint8

// The risks.
const (
	// NoRisk decides only about entries of which it is known that they are not
	// stored; others are refused with ErrRisk.
	NoRisk Risk = iota
	// MayBeStoredTwice is the risk of resending what may be stored already.
	MayBeStoredTwice
	// MayNeverBeStored is the risk of discarding what may not be stored.
	MayNeverBeStored
)
