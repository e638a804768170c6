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
	default:
		return checkErrorf(StatusUnsupported, "request kind %d is not one of this machine version", kind)
	}
	return malformed(err)
}

func (c *queueCreate) check() error {
	if !validQueueName(c.name) {
		return checkErrorf(StatusMalformed, "queue name %q: 1 to %d of a-z A-Z 0-9 . _ - are accepted", c.name, QueueNameBytesMax)
	}
	s := c.settings
	if s.LeaseTime != 0 && (s.LeaseTime < LeaseTimeMin || s.LeaseTime > LeaseTimeMax) {
		return checkErrorf(StatusMalformed, "lease time %v: %v to %v is accepted", s.LeaseTime, LeaseTimeMin, LeaseTimeMax)
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
	var r pack.Reader
	for _, p := range f.publishes {
		sum.Reset()
		sum.Field(f.queue)
		sum.Uint(uint64(p.count))
		for _, m := range f.messages[p.first : p.first+p.count] {
			r.Reset(m)
			if err := checkMessage(&r, &sum, l); err != nil {
				return err
			}
		}
		if got := sum.Sum64(); got != p.checksum {
			return checkErrorf(StatusMalformed, "sequence %d: checksum %016x does not match its body (%016x): damaged on the way", p.sequence, p.checksum, got)
		}
	}
	return nil
}

func checkMessage(r *pack.Reader, sum *pack.Sum, l Limits) error {
	r.ArrayExact(messageFields)
	body := r.Bin(PayloadBytesMax)
	if len(body) > l.BodyBytesMax {
		return checkErrorf(StatusTooLarge, "body of %d bytes, at most %d are accepted", len(body), l.BodyBytesMax)
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
	priority, delay, deliverAt, ttl := r.Uint8(), r.Int(), r.Int(), r.Int()
	if err := r.Done(); err != nil {
		return err
	}
	if len(key) != 0 || priority != 0 || delay != 0 || deliverAt != 0 || ttl != 0 {
		return checkErrorf(StatusUnsupported, "ordering key, priority, delay, deliver-at and time to live are not supported by this machine version")
	}
	sum.Field(key)
	sum.Uint(uint64(priority))
	sum.Uint(uint64(delay))
	sum.Uint(uint64(deliverAt))
	sum.Uint(uint64(ttl))
	return nil
}
