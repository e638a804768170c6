package wire

import "fmt"

// CheckOptions says what is wrong with the options of messages that are
// published together, nil for nothing. The machine refuses the same; whoever
// publishes asks here first, since a refusal costs a round trip.
//
// An ordering key keeps messages in the order in which they were stored, so it
// excludes what would have a later one go first: priority, delay and deliver-at.
// Messages of one batch get neighbouring places, so they have one priority.
func CheckOptions(messages []Message) *Error {
	bad := func(format string, args ...any) *Error {
		return &Error{NewErrorReply(CodeBadOptions, format, args...)}
	}
	for i := range messages {
		m := &messages[i]
		switch {
		case m.Priority > PriorityMax:
			return bad("priority %d: 0 to %d is accepted", m.Priority, PriorityMax)
		case m.Delay < 0 || m.Delay > DelayMax:
			return bad("delay of %v: 0 to %v is accepted", m.Delay, DelayMax)
		case m.TTL < 0 || m.TTL > DelayMax:
			return bad("time to live of %v: 0 to %v is accepted", m.TTL, DelayMax)
		case m.DeliverAt < 0:
			return bad("deliver-at lies before 1970")
		case m.Delay != 0 && m.DeliverAt != 0:
			return bad("delay and deliver-at exclude each other")
		case m.OrderingKey != "" && m.Priority != 0:
			return bad("ordering key and priority exclude each other")
		case m.OrderingKey != "" && (m.Delay != 0 || m.DeliverAt != 0):
			return bad("ordering key and %s exclude each other", map[bool]string{true: "delay", false: "deliver-at"}[m.Delay != 0])
		case m.Priority != messages[0].Priority:
			return bad("messages of one batch have one priority, not %d and %d", messages[0].Priority, m.Priority)
		}
		if text := tooLong(m); text != "" {
			return &Error{NewErrorReply(CodeTooLarge, "%s", text)}
		}
	}
	return nil
}

func tooLong(m *Message) string {
	long := func(what string, have, most int) string {
		if have <= most {
			return ""
		}
		return fmt.Sprintf("%s of %d bytes, at most %d are accepted", what, have, most)
	}
	if len(m.Headers) > HeadersMax {
		return fmt.Sprintf("%d headers, at most %d are accepted", len(m.Headers), HeadersMax)
	}
	if text := long("biz-id", len(m.BizID), BizIDBytesMax); text != "" {
		return text
	}
	if text := long("ordering key", len(m.OrderingKey), OrderingKeyBytesMax); text != "" {
		return text
	}
	for _, h := range m.Headers {
		if text := long("name of a header", len(h.Name), HeaderNameBytesMax); text != "" {
			return text
		}
		if text := long("value of a header", len(h.Value), HeaderValueBytesMax); text != "" {
			return text
		}
	}
	return ""
}
