package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrBadID is wrapped by the errors of the parsers of ids.
var ErrBadID = errors.New("bad id")

// String is "s1.42", with "@" and the incarnation when there is one.
func (s SessionID) String() string {
	return s.short() + incarnationSuffix(s.Incarnation)
}

func (s SessionID) short() string {
	return "s" + strconv.FormatUint(uint64(s.Group), 10) + "." + strconv.FormatUint(s.Number, 10)
}

// String is "s1.42.1093@9f3ac01276d3e5aa", without the incarnation when there
// is none. It parses back to the same id.
func (id InnerMsgID) String() string {
	return id.Short() + incarnationSuffix(id.Session.Incarnation)
}

// Short is "s1.42.1093": the id as one knows it within a cluster.
func (id InnerMsgID) Short() string {
	return id.Session.short() + "." + strconv.FormatUint(id.Sequence, 10)
}

func incarnationSuffix(incarnation uint64) string {
	if incarnation == 0 {
		return ""
	}
	return fmt.Sprintf("@%016x", incarnation)
}

// ParseInnerMsgID reads "s1.42.1093" and "s1.42.1093@9f3ac01276d3e5aa". The
// incarnation of the short form is 0: the one who asks knows which is meant.
func ParseInnerMsgID(text string) (InnerMsgID, error) {
	bad := func(why string) (InnerMsgID, error) {
		if len(text) > 80 {
			text = text[:80] + "..."
		}
		return InnerMsgID{}, fmt.Errorf("%w %q: %s; an inner-msg-id looks like s1.42.1093 or s1.42.1093@9f3ac01276d3e5aa", ErrBadID, text, why)
	}
	rest, ok := strings.CutPrefix(text, "s")
	if !ok {
		return bad("it does not start with s")
	}
	var id InnerMsgID
	rest, hex, hasIncarnation := strings.Cut(rest, "@")
	if hasIncarnation {
		n, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || len(hex) != 16 || strings.ToLower(hex) != hex || n == 0 {
			return bad("after the @ must come 16 hexadecimal digits")
		}
		id.Session.Incarnation = n
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 3 {
		return bad("it must have three numbers")
	}
	var numbers [3]uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 64)
		// Only the one text that String writes is accepted, so that texts
		// are equal exactly when ids are.
		if err != nil || strconv.FormatUint(n, 10) != part {
			return bad(fmt.Sprintf("%q is no number", part))
		}
		numbers[i] = n
	}
	if numbers[0] > 1<<32-1 {
		return bad("the group does not fit 32 bits")
	}
	id.Session.Group, id.Session.Number, id.Sequence = uint32(numbers[0]), numbers[1], numbers[2]
	return id, nil
}

// FormatMessageID is the text of a message's place: "orders/17" in lane 0,
// "orders/p3.17" in lane 3.
func FormatMessageID(queue string, lane uint8, offset uint64) string {
	if lane == 0 {
		return queue + "/" + strconv.FormatUint(offset, 10)
	}
	return queue + "/p" + strconv.Itoa(int(lane)) + "." + strconv.FormatUint(offset, 10)
}

// ParseMessageID reads what FormatMessageID writes.
func ParseMessageID(text string) (queue string, at Place, err error) {
	bad := func(why string) (string, Place, error) {
		if len(text) > 300 {
			text = text[:300] + "..."
		}
		return "", Place{}, fmt.Errorf("%w %q: %s; a message id looks like orders/17 or orders/p3.17", ErrBadID, text, why)
	}
	queue, rest, ok := strings.Cut(text, "/")
	if !ok {
		return bad("it has no /")
	}
	if !ValidQueueName(queue) {
		return bad("before the / must come the name of a queue")
	}
	if lane, offset, ok := strings.Cut(rest, "."); ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(lane, "p"), 10, 8)
		if err != nil || n > PriorityMax {
			return bad(fmt.Sprintf("%q is no priority", lane))
		}
		at.Lane, rest = uint8(n), offset
	}
	if at.Offset, err = strconv.ParseUint(rest, 10, 64); err != nil {
		return bad(fmt.Sprintf("%q is no number", rest))
	}
	// Only the one text that FormatMessageID writes is accepted.
	if FormatMessageID(queue, at.Lane, at.Offset) != text {
		return bad("it is written in another way")
	}
	return queue, at, nil
}

// String is the id in hexadecimal.
func (id ConsumerID) String() string { return fmt.Sprintf("%x", id[:]) }

// ValidQueueName says whether name may name a queue: 1 to 255 bytes of letters,
// digits, dot, underscore and hyphen.
func ValidQueueName(name string) bool {
	if len(name) == 0 || len(name) > QueueNameBytesMax {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
