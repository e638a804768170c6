package wire

import "onceq/transport/wire/pack"

// PublishChecksum is the checksum of a publish: what tells a retransmitted
// copy from another message under the same sequence, and a body from one that
// was damaged on the way. It covers all that the producer decided.
func PublishChecksum(queue string, messages []Message) uint64 {
	var s pack.Sum
	sumMessages(&s, queue, messages)
	return s.Sum64()
}

// AckPublishChecksum is the checksum of an ack-and-publish: of the lease that it
// acks, and of what it publishes to each queue.
func AckPublishChecksum(consumer ConsumerID, number uint64, outputs []Output) uint64 {
	var s pack.Sum
	s.Field(consumer[:])
	s.Uint(number)
	for i := range outputs {
		sumMessages(&s, outputs[i].Queue, outputs[i].Messages)
	}
	return s.Sum64()
}

func sumMessages(s *pack.Sum, queue string, messages []Message) {
	s.FieldString(queue)
	s.Uint(uint64(len(messages)))
	for i := range messages {
		m := &messages[i]
		s.Field(m.Body)
		s.FieldString(m.BizID)
		s.Uint(uint64(len(m.Headers)))
		for _, h := range m.Headers {
			s.FieldString(h.Name)
			s.FieldString(h.Value)
		}
		s.FieldString(m.OrderingKey)
		s.Uint(uint64(m.Priority))
		s.Uint(uint64(m.Delay))
		s.Uint(uint64(m.DeliverAt))
		s.Uint(uint64(m.TTL))
	}
}
