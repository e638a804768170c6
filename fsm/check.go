package fsm

import (
	"sync"

	"onceq/transport/wire/pack"
)

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// Check decodes a payload completely with the decoders that Apply uses and
// holds it against all limits. The leader runs it before the payload joins an
// entry, since an entry that cannot be applied would stop every node, again at
// each start. The error is a *CheckError; nothing has happened then.
func Check(kind Kind, payload []byte, l Limits) error {
	l = l.withDefaults()
	if len(payload) > PayloadBytesMax {
		return checkErrorf(StatusTooLarge, "request of %d bytes, at most %d are accepted", len(payload), PayloadBytesMax)
	}
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	var err error
	switch kind {
	case KindOpenSession:
		_, err = d.decodeOpenSession(payload)
	case KindCloseSession:
		_, err = d.decodeCloseSession(payload)
	case KindPublish:
		err = d.checkPublish(payload, l)
	case KindSeal:
		_, err = d.decodeSeal(payload)
	case KindAttach:
		var c attach
		c, err = d.decodeAttach(payload)
		if err == nil && c.credit > l.CreditMax {
			err = checkErrorf(StatusMalformed, "credit %d, at most %d is accepted", c.credit, l.CreditMax)
		}
	case KindLeave:
		_, err = d.decodeLeave(payload)
	case KindSettle:
		_, err = d.decodeSettle(payload)
	case KindReceive:
		_, err = d.decodeReceive(payload)
	case KindRelease:
		_, err = d.decodeRelease(payload)
	case KindQueueCreate:
		var c queueCreate
		c, err = d.decodeQueueCreate(payload)
		if err == nil {
			err = c.check()
		}
	case KindQueueDelete:
		_, err = d.decodeQueueDelete(payload)
	case KindQueuePurge:
		_, err = d.decodeQueuePurge(payload)
	case KindQueueUpdate:
		var c queueUpdate
		if c, err = d.decodeQueueUpdate(payload); err == nil {
			err = checkSettings(c.settings, "")
		}
	case KindQueuePause:
		_, err = d.decodeQueuePause(payload)
	case KindEdit:
		_, err = d.decodeEdit(payload)
	case KindAckPublish:
		err = d.checkAckPublish(payload, l)
	case KindRestoreBegin:
		_, err = d.decodeRestoreBegin(payload)
	case KindRestoreChunk:
		var c restoreChunk
		if c, err = d.decodeRestoreChunk(payload); err == nil {
			err = c.check()
		}
	case KindRestoreEnd:
		_, err = d.decodeRestoreEnd(payload)
	default:
		return checkErrorf(StatusUnsupported, "request kind %d is not one of this machine version", kind)
	}
	return malformed(err)
}

func (c *queueCreate) check() error {
	if !validQueueName(c.name) {
		return checkErrorf(StatusMalformed, "queue name %q: 1 to %d of a-z A-Z 0-9 . _ - are accepted", c.name, QueueNameBytesMax)
	}
	return checkSettings(c.settings, c.name)
}

func checkSettings(s QueueSettings, name string) error {
	if wrong := s.check(name); wrong != "" {
		return &CheckError{Status: StatusMalformed, Text: wrong, Settings: true}
	}
	return nil
}

func validQueueName(s string) bool {
	if s == "" || len(s) > QueueNameBytesMax {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// checkPublish also compares each publish with its checksum, which the client
// computed when the sequence was taken, over the fields as the user gave them.
func (d *decoder) checkPublish(payload []byte, l Limits) error {
	f, err := d.decodePublish(payload)
	if err != nil {
		return err
	}
	var sum pack.Sum
	for _, p := range f.publishes {
		sum.Reset()
		if err := sumMessages(&sum, f.queue, f.messages[p.first:p.first+p.count], l); err != nil {
			return err
		}
		if err := compare(&sum, p.sequence, p.checksum); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) checkAckPublish(payload []byte, l Limits) error {
	c, err := d.decodeAckPublish(payload)
	if err != nil {
		return err
	}
	var sum pack.Sum
	sum.Reset()
	sum.Field(c.consumer[:])
	sum.Uint(c.number)
	for _, out := range c.outputs {
		if err := sumMessages(&sum, out.queue, out.messages, l); err != nil {
			return err
		}
	}
	return compare(&sum, c.sequence, c.checksum)
}

func compare(sum *pack.Sum, sequence, want uint64) error {
	if got := sum.Sum64(); got != want {
		return checkErrorf(StatusMalformed, "sequence %d: checksum %016x does not match its body (%016x): damaged on the way", sequence, want, got)
	}
	return nil
}

// sumMessages checks messages that go to one queue together, and adds them to
// the checksum.
func sumMessages(sum *pack.Sum, queue []byte, messages [][]byte, l Limits) error {
	sum.Field(queue)
	sum.Uint(uint64(len(messages)))
	var r pack.Reader
	first := uint8(0)
	for i, m := range messages {
		r.Reset(m)
		priority, err := checkMessage(&r, sum, l)
		if err != nil {
			return err
		}
		if i == 0 {
			first = priority
		}
		if priority != first {
			return checkErrorf(StatusMalformed, "messages of one batch have one priority, not %d and %d", first, priority)
		}
	}
	return nil
}

func checkMessage(r *pack.Reader, sum *pack.Sum, l Limits) (priority uint8, err error) {
	r.ArrayExact(messageFields)
	body := r.Bin(PayloadBytesMax)
	if len(body) > l.BodyBytesMax {
		return 0, checkErrorf(StatusTooLarge, "body of %d bytes, at most %d are accepted", len(body), l.BodyBytesMax)
	}
	sum.Field(body)
	sum.Field(r.StrBytes(BizIDBytesMax))
	headers := r.Array(HeadersMax)
	sum.Uint(uint64(headers))
	for range headers {
		r.ArrayExact(2)
		sum.Field(r.StrBytes(HeaderNameBytesMax))
		sum.Field(r.StrBytes(HeaderValueBytesMax))
	}
	key := r.StrBytes(OrderingKeyBytesMax)
	priority = r.Uint8()
	delay, deliverAt, ttl := r.Int(), r.Int(), r.Int()
	if err := r.Done(); err != nil {
		return 0, err
	}
	// An ordering key keeps messages in storing order, which a priority or a
	// delay of one of them would break.
	switch {
	case priority >= Priorities:
		return 0, checkErrorf(StatusMalformed, "priority %d: 0 to %d is accepted", priority, Priorities-1)
	case delay < 0 || delay > int64(DelayMax):
		return 0, checkErrorf(StatusMalformed, "delay of %d ns: 0 to %v is accepted", delay, DelayMax)
	case ttl < 0 || ttl > int64(DelayMax):
		return 0, checkErrorf(StatusMalformed, "time to live of %d ns: 0 to %v is accepted", ttl, DelayMax)
	case deliverAt < 0:
		return 0, checkErrorf(StatusMalformed, "deliver-at lies before 1970")
	case delay != 0 && deliverAt != 0:
		return 0, checkErrorf(StatusMalformed, "delay and deliver-at exclude each other")
	case len(key) > 0 && (priority != 0 || delay != 0 || deliverAt != 0):
		return 0, checkErrorf(StatusMalformed, "an ordering key excludes priority, delay and deliver-at")
	}
	sum.Field(key)
	sum.Uint(uint64(priority))
	sum.Uint(uint64(delay))
	sum.Uint(uint64(deliverAt))
	sum.Uint(uint64(ttl))
	return priority, nil
}
