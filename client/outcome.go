package client

import "context"

// OutcomeState is what is known of a publish.
type OutcomeState uint8

// The states of an Outcome.
const (
	NotStoredSoFar OutcomeState = iota // a copy may still arrive
	Stored
	Never   // sealed: not stored, and never will be
	Unknown // the cluster cannot tell (any more), see Reason
)

func (s OutcomeState) String() string {
	switch s {
	case Stored:
		return "stored"
	case Never:
		return "never"
	case Unknown:
		return "unknown"
	}
	return "not stored so far"
}

// Outcome is the fate of one publish.
type Outcome struct {
	ID      InnerMsgID
	State   OutcomeState
	Message MessageID // of the first message, when Stored; Queue is its number's name if that could be found
	Count   int       // messages stored under ID
	Reason  string    // when Unknown
}

// Outcome looks up what became of a publish without changing anything.
func (c *Client) Outcome(ctx context.Context, id InnerMsgID) (Outcome, error) {
	return Outcome{}, ErrClosed
}

// Seal closes id for good: it is either stored, or it never will be.
func (c *Client) Seal(ctx context.Context, id InnerMsgID) (Outcome, error) {
	return Outcome{}, ErrClosed
}

// ParseInnerMsgID reads "s1.42.1093" or "s1.42.1093@9f3ac01276d3e5aa". Without
// an incarnation the client fills in that of its cluster.
func ParseInnerMsgID(s string) (InnerMsgID, error) { return InnerMsgID{}, ErrClosed }
