package wire

import "onceq/transport/wire/pack"

// PublishChecksum is the checksum of a publish: what tells a retransmitted
// copy from another message under the same sequence, and a body from one that
// was damaged on the way. It covers all that the producer decided.
func PublishChecksum(queue string, messages []Message) uint64 {
	var s pack.Sum
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
	return s.Sum64()
}
