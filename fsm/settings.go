package fsm

import (
	"fmt"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// QueueSettings are what a queue's owner chose. Zero fields take the default.
type QueueSettings struct {
	// LeaseTime is how long a consumer holds a message without a word; default
	// 30 s, from 1 s to 12 h.
	LeaseTime time.Duration
	// LengthMax bounds messages ready, delayed and leased; 0: no limit. Publishes
	// beyond are refused.
	LengthMax uint64
	// BytesMax bounds the bytes of messages that were not delivered yet; 0: no
	// limit. Publishes beyond are refused. Of what was delivered the machine does not
	// keep the size, so dead letters do not count where they go: bound that queue by
	// LengthMax.
	BytesMax uint64
	// TTL is how long a message may wait; then it is gone. 0: for ever.
	TTL time.Duration
	// DeliveryLimit is how many attempts may fail before the message is a dead
	// letter; 0: no limit.
	DeliveryLimit uint32
	// DeadLetter names the queue of the same group that takes dead letters.
	// Without one, or when it refuses, they are parked in place.
	DeadLetter string
	// BackoffMin and BackoffMax bound the delay after a nack that names none: it
	// doubles with each failure, with a jitter of a fifth. Defaults 100 ms and
	// 1 min; a BackoffMin below 0 is none.
	BackoffMin, BackoffMax time.Duration
	// SingleActive lets only the consumer that attached first have messages; the
	// next takes over when it has left or was given up.
	SingleActive bool
}

// withDefaults fills the zero fields.
func (s QueueSettings) withDefaults() QueueSettings {
	if s.LeaseTime == 0 {
		s.LeaseTime = LeaseTimeDefault
	}
	if s.BackoffMin == 0 {
		s.BackoffMin = BackoffMinDefault
	}
	if s.BackoffMax == 0 {
		s.BackoffMax = max(BackoffMaxDefault, s.BackoffMin)
	}
	return s
}

// check says what is wrong with settings; "" for nothing.
func (s QueueSettings) check(name string) string {
	d := s.withDefaults()
	switch {
	case s.LeaseTime != 0 && (s.LeaseTime < LeaseTimeMin || s.LeaseTime > LeaseTimeMax):
		return fmt.Sprintf("lease time %v: %v to %v is accepted", s.LeaseTime, LeaseTimeMin, LeaseTimeMax)
	case s.TTL < 0 || s.TTL > DelayMax:
		return fmt.Sprintf("time to live %v: 0 to %v is accepted", s.TTL, DelayMax)
	case d.BackoffMax > NackDelayMax || d.BackoffMin > d.BackoffMax:
		return fmt.Sprintf("backoff from %v to %v: the first is at most the second, which is at most %v", d.BackoffMin, d.BackoffMax, NackDelayMax)
	case s.DeadLetter != "" && !validQueueName(s.DeadLetter):
		return fmt.Sprintf("dead-letter queue %q is no name for a queue", s.DeadLetter)
	case s.DeadLetter != "" && s.DeadLetter == name:
		return "a queue cannot be its own dead-letter queue"
	}
	return ""
}

// differences names the settings in which two queues differ.
func (s QueueSettings) differences(want QueueSettings) string {
	var d []string
	note := func(name string, have, want any) {
		if have != want {
			d = append(d, fmt.Sprintf("%s is %v, not %v", name, have, want))
		}
	}
	note("lease time", s.LeaseTime, want.LeaseTime)
	note("length limit", s.LengthMax, want.LengthMax)
	note("bytes limit", s.BytesMax, want.BytesMax)
	note("time to live", s.TTL, want.TTL)
	note("delivery limit", s.DeliveryLimit, want.DeliveryLimit)
	note("dead-letter queue", fmt.Sprintf("%q", s.DeadLetter), fmt.Sprintf("%q", want.DeadLetter))
	note("first backoff", s.BackoffMin, want.BackoffMin)
	note("longest backoff", s.BackoffMax, want.BackoffMax)
	note("single active consumer", s.SingleActive, want.SingleActive)
	return strings.Join(d, "; ")
}

// backoff is the delay after a message's n-th failure. The jitter is derived
// from the message, so that every replica finds the same.
func (s QueueSettings) backoff(queue uint64, p place, failures uint32) time.Duration {
	if s.BackoffMin <= 0 || failures == 0 {
		return 0
	}
	d := s.BackoffMax
	if shift := failures - 1; shift < 63 && s.BackoffMin <= s.BackoffMax>>shift { // else it is more, or no int64
		d = s.BackoffMin << shift
	}
	var seed [8 + 8 + 1 + 4]byte
	putUint64(seed[0:], queue)
	putUint64(seed[8:], p.offset)
	seed[16] = p.lane
	putUint32(seed[17:], failures)
	fifth := uint64(d / 5)
	if fifth == 0 {
		return d
	}
	return d - time.Duration(xxhash.Sum64(seed[:])%fifth)
}
