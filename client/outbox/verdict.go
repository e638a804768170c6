package outbox

import (
	"errors"

	"onceq/client"
	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

// What is to be done with an entry after an answer.
type what uint8

const (
	isStored what = iota + 1
	isHeld
	isUnsent // no copy is stored or will be: it may be sent under another sequence
	isOpen   // the session has ended and the next one decides
)

// verdict is what is to be done with an entry.
type verdict struct {
	what    what
	receipt client.Receipt
	reason  Reason
	text    string
}

// judge says what the outcome of a publish means.
func judge(err error) verdict {
	e := (*client.Error)(nil)
	switch {
	case err == nil:
		return verdict{what: isStored}
	case errors.Is(err, client.ErrClosed), errors.Is(err, client.ErrFenced):
		return verdict{what: isOpen}
	case errors.Is(err, client.ErrSessionExpired), errors.Is(err, client.ErrRestored), errors.Is(err, client.ErrWrongCluster):
		if errors.Is(err, client.ErrOutcomeUnknown) {
			return verdict{what: isOpen}
		}
		return verdict{what: isUnsent}
	case errors.As(err, &e) && e.Code == wire.CodeBelowFloor:
		return verdict{what: isHeld, reason: BelowFloor, text: err.Error()}
	case errors.Is(err, client.ErrOutcomeUnknown):
		return verdict{what: isOpen}
	}
	return verdict{what: isHeld, reason: Refused, text: err.Error()}
}

// verdictOf says what is to be done with an entry of a session that is not s, the
// present one. What the cluster remembers it is believed; what it cannot judge any
// more is for somebody to decide.
func verdictOf(o client.Outcome, s sequenced.Session) verdict {
	switch o.State {
	case client.Stored:
		return verdict{what: isStored, receipt: client.Receipt{ID: o.ID, Message: o.Message, Duplicate: true}}
	case client.Never:
		return verdict{what: isUnsent}
	}
	v := verdict{what: isHeld, reason: SessionLost, text: o.Reason}
	if o.ID.Session.Incarnation != s.ID().Incarnation {
		v.reason = OtherLife
	}
	return v
}
