package cluster

import (
	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// appender is a message of the wire.
type appender interface{ Append(w *pack.Writer) }

func encoded(m appender) []byte {
	w := pack.NewWriter(nil)
	m.Append(w)
	return w.Bytes()
}

func statusReply(s fsm.Status) wire.StatusReply { return wire.StatusReply{Status: wire.Status(s)} }

func sessionOpened(r *fsm.Result) wire.SessionOpened {
	m := wire.SessionOpened{Status: wire.Status(r.Status), Epoch: r.Session.Epoch}
	if r.Status == fsm.StatusOK {
		m.Session = wire.SessionID{Incarnation: r.Session.Incarnation, Group: groupNumber, Number: r.Session.Number}
		m.Floor, m.Next, m.Expiry = r.Session.Floor, r.Session.Next, r.Session.Expiry
	}
	return m
}

func publishResult(r fsm.PublishResult) wire.PublishResult {
	out := wire.PublishResult{Sequence: r.Sequence, Status: wire.Status(r.Status), Duplicate: r.Duplicate,
		Queue: r.Queue, Lane: r.Lane, Offset: r.Offset, Count: r.Count}
	for _, p := range r.Outputs {
		out.Outputs = append(out.Outputs, wire.Position(p))
	}
	return out
}

func publishResults(rs []fsm.PublishResult) []wire.PublishResult {
	out := make([]wire.PublishResult, len(rs))
	for i, r := range rs {
		out[i] = publishResult(r)
	}
	return out
}

func deliveryStates(ss []fsm.DeliveryState) []wire.DeliveryState {
	out := make([]wire.DeliveryState, len(ss))
	for i, s := range ss {
		out[i] = wire.DeliveryState{From: s.From, To: s.To, State: wire.LeaseState(s.State)}
	}
	return out
}

func attached(r *fsm.Result) wire.Attached {
	return wire.Attached{Status: wire.Status(r.Status), QueueNumber: r.Attach.Queue, LeaseTime: r.Attach.LeaseTime,
		Next: r.Attach.Next, States: deliveryStates(r.Attach.States)}
}

func receivedReply(r *fsm.Result) wire.Received {
	return wire.Received{Status: wire.Status(r.Status), QueueNumber: r.Receive.Queue, LeaseTime: r.Receive.LeaseTime, Next: r.Receive.Next}
}

func queueReply(r *fsm.Result) wire.QueueReply {
	return wire.QueueReply{Status: wire.Status(r.Status), Text: r.Conflict, Removed: r.Removed, Deletions: r.Deletions, Info: queueInfo(r.Queue)}
}

func queueInfo(q fsm.QueueInfo) wire.QueueInfo {
	return wire.QueueInfo{
		Number: q.Number, Name: q.Name, Revision: q.Revision, Paused: q.Paused,
		Settings:  wire.QueueSettings(q.Settings),
		Counts:    queueCounts(q.Counts),
		Bytes:     q.Bytes,
		Consumers: q.Consumers,
		OldestAge: q.OldestAge,
	}
}

func queueCounts(c fsm.QueueCounts) wire.QueueCounts {
	return wire.QueueCounts{
		Stored: c.Stored, Ready: c.Ready, Leased: c.Leased, Delayed: c.Delayed, Parked: c.Parked,
		Acked: c.Acked, Expired: c.Expired, DeadLettered: c.DeadLettered, Deleted: c.Deleted, Purged: c.Purged, Moved: c.Moved,
		Delivered:          c.Delivered,
		RedeliveredExpired: c.RedeliveredExpired, RedeliveredNacked: c.RedeliveredNacked,
		RedeliveredGone: c.RedeliveredGone, RedeliveredLeft: c.RedeliveredLeft,
		DuplicatesRefused: c.DuplicatesRefused,
	}
}

func editReply(r *fsm.Result) wire.EditReply {
	m := wire.EditReply{Status: wire.Status(r.Status)}
	for _, s := range r.Edits {
		m.States = append(m.States, wire.EditState(s))
	}
	return m
}

func restoreReply(r *fsm.Result) wire.RestoreReply {
	x := r.Restore
	return wire.RestoreReply{
		Status: wire.Status(r.Status), Incarnation: x.Incarnation, Backup: wire.BackupID(x.Backup), Under: x.Under, Chunks: x.Chunks,
		Queues: x.Queues, Messages: x.Messages, Text: x.Text[:min(len(x.Text), wire.TextBytesMax)],
	}
}

func deadLetters(d *fsm.DeadLetter) []wire.DeadLetter {
	if d == nil {
		return nil
	}
	return []wire.DeadLetter{wire.DeadLetter(*d)}
}

func lostMessage(l *fsm.Loss) wire.Lost {
	return wire.Lost{Consumer: wire.ConsumerID(l.Consumer), N: l.N, Gone: l.Gone, Lost: deliveryStates(l.Lost)}
}

// commandReply encodes what a client's command did, or the refusal for a result
// that the reply's type has no room for.
func commandReply(r *fsm.Result) ([]byte, *wire.ErrorReply) {
	switch r.Kind {
	case fsm.KindOpenSession:
		return encoded(sessionOpened(r)), nil
	case fsm.KindCloseSession, fsm.KindLeave:
		return encoded(statusReply(r.Status)), nil
	case fsm.KindPublish, fsm.KindAckPublish:
		if r.Status != fsm.StatusOK && len(r.Publish) == 0 {
			return nil, statusError(r.Status)
		}
		return encoded(wire.PublishReply{Results: publishResults(r.Publish)}), nil
	case fsm.KindSeal:
		return encoded(wire.SealReply{Status: wire.Status(r.Status), Outcomes: publishResults(r.Publish)}), nil
	case fsm.KindAttach:
		return encoded(attached(r)), nil
	case fsm.KindSettle:
		return encoded(wire.SettleReply{Status: wire.Status(r.Status), Results: deliveryStates(r.Settle)}), nil
	case fsm.KindRestoreBegin, fsm.KindRestoreChunk, fsm.KindRestoreEnd:
		return encoded(restoreReply(r)), nil
	case fsm.KindEdit:
		return encoded(editReply(r)), nil
	case fsm.KindQueueCreate, fsm.KindQueueDelete, fsm.KindQueuePurge, fsm.KindQueueUpdate, fsm.KindQueuePause:
		return encoded(queueReply(r)), nil
	default:
		return nil, &wire.ErrorReply{Code: wire.CodeInternal, Text: "no reply is defined for this command"}
	}
}

func statusError(s fsm.Status) *wire.ErrorReply {
	code := wire.CodeOf(wire.Status(s))
	return &wire.ErrorReply{Code: code, Text: wire.Status(s).String()}
}
