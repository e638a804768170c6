package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// The machine and the wire are two packages that must not know each other and
// share their values; this package is where they meet.

func TestWords_StatusesAreEqual(t *testing.T) {
	for _, v := range []struct {
		m fsm.Status
		w wire.Status
	}{
		{fsm.StatusOK, wire.StatusOK}, {fsm.StatusSessionExpired, wire.StatusSessionExpired}, {fsm.StatusFenced, wire.StatusFenced},
		{fsm.StatusBelowFloor, wire.StatusBelowFloor}, {fsm.StatusWindowFull, wire.StatusWindowFull}, {fsm.StatusSealed, wire.StatusSealed},
		{fsm.StatusBodyDiffers, wire.StatusBodyDiffers}, {fsm.StatusOutOfOrder, wire.StatusOutOfOrder}, {fsm.StatusQueueFull, wire.StatusQueueFull},
		{fsm.StatusTooLarge, wire.StatusTooLarge}, {fsm.StatusNoQueue, wire.StatusNoQueue}, {fsm.StatusSessionCap, wire.StatusSessionCap},
		{fsm.StatusOutcomeCap, wire.StatusOutcomeCap}, {fsm.StatusEpochMismatch, wire.StatusEpochMismatch}, {fsm.StatusNotStored, wire.StatusNotStored},
		{fsm.StatusLeaseLost, wire.StatusLeaseLost}, {fsm.StatusConsumerGone, wire.StatusConsumerGone}, {fsm.StatusStale, wire.StatusStale},
		{fsm.StatusConsumerCap, wire.StatusConsumerCap}, {fsm.StatusConflict, wire.StatusConflict}, {fsm.StatusQueueCap, wire.StatusQueueCap},
		{fsm.StatusRevision, wire.StatusRevision}, {fsm.StatusUnsupported, wire.StatusUnsupported},
		{fsm.StatusWrongIncarnation, wire.StatusWrongIncarnation}, {fsm.StatusMalformed, wire.StatusMalformed},
		{fsm.StatusIndexCap, wire.StatusIndexCap}, {fsm.StatusRestored, wire.StatusRestored},
		{fsm.StatusNotEmpty, wire.StatusNotEmpty}, {fsm.StatusRestoreStale, wire.StatusRestoreStale},
		{fsm.StatusLeaseCap, wire.StatusLeaseCap}, {fsm.StatusBusy, wire.StatusBusy},
	} {
		if uint8(v.m) != uint8(v.w) {
			t.Errorf("machine %d, wire %d (%v)", v.m, v.w, v.w)
		}
	}
}

func TestWords_LeaseStatesAreEqual(t *testing.T) {
	for _, v := range []struct {
		m fsm.LeaseState
		w wire.LeaseState
	}{
		{fsm.LeaseHeld, wire.LeaseHeld}, {fsm.LeaseAcked, wire.LeaseAcked}, {fsm.LeaseNacked, wire.LeaseNacked},
		{fsm.LeaseExpired, wire.LeaseExpired}, {fsm.LeaseGone, wire.LeaseGone}, {fsm.LeasePurged, wire.LeasePurged},
		{fsm.LeaseDeleted, wire.LeaseDeleted}, {fsm.LeaseUnknown, wire.LeaseUnknown}, {fsm.LeaseReturned, wire.LeaseReturned},
		{fsm.LeaseRejected, wire.LeaseRejected},
	} {
		if uint8(v.m) != uint8(v.w) {
			t.Errorf("machine %d, wire %d (%v)", v.m, v.w, v.w)
		}
	}
}

func TestWords_OfEditsAndLooksAreEqual(t *testing.T) {
	for name, v := range map[string][2]uint8{
		"delete": {uint8(fsm.EditDelete), uint8(wire.EditDelete)}, "requeue": {uint8(fsm.EditRequeue), uint8(wire.EditRequeue)},
		"release": {uint8(fsm.EditRelease), uint8(wire.EditRelease)}, "move": {uint8(fsm.EditMove), uint8(wire.EditMove)},
		"done": {uint8(fsm.EditDone), uint8(wire.EditDone)}, "not here": {uint8(fsm.EditNotHere), uint8(wire.EditNotHere)},
		"leased": {uint8(fsm.EditLeased), uint8(wire.EditLeased)}, "unchanged": {uint8(fsm.EditUnchanged), uint8(wire.EditUnchanged)},
		"refused":       {uint8(fsm.EditRefused), uint8(wire.EditRefused)},
		"ready":         {uint8(fsm.MessageReady), uint8(wire.MessageReady)},
		"blocked":       {uint8(fsm.MessageBlocked), uint8(wire.MessageBlocked)},
		"delayed":       {uint8(fsm.MessageDelayed), uint8(wire.MessageDelayed)},
		"held":          {uint8(fsm.MessageLeased), uint8(wire.MessageLeased)},
		"parked":        {uint8(fsm.MessageParked), uint8(wire.MessageParked)},
		"event expired": {uint8(fsm.EventExpired), uint8(wire.EventExpired)}, "event nacked": {uint8(fsm.EventNacked), uint8(wire.EventNacked)},
		"event gone": {uint8(fsm.EventGone), uint8(wire.EventGone)}, "event left": {uint8(fsm.EventLeft), uint8(wire.EventLeft)},
		"event rejected": {uint8(fsm.EventRejected), uint8(wire.EventRejected)}, "event leased": {uint8(fsm.EventLeased), uint8(wire.EventLeased)},
		"event dead": {uint8(fsm.EventDead), uint8(wire.EventDead)}, "event parked": {uint8(fsm.EventParked), uint8(wire.EventParked)},
		"event requeued": {uint8(fsm.EventRequeued), uint8(wire.EventRequeued)}, "event released": {uint8(fsm.EventReleased), uint8(wire.EventReleased)},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: machine %d, wire %d", name, v[0], v[1])
		}
	}
}

// TestWords_CheckRefusesWhatTheTableOfOptionsRefuses: clients ask the wire
// package before they send, the machine decides.
func TestWords_CheckRefusesWhatTheTableOfOptionsRefuses(t *testing.T) {
	for key := range 2 {
		for _, priority := range []uint8{0, 9, 10} {
			for _, delay := range []time.Duration{-1, 0, time.Second, wire.DelayMax, wire.DelayMax + 1} {
				for _, at := range []int64{-1, 0, 1} {
					for _, ttl := range []time.Duration{-1, 0, wire.DelayMax, wire.DelayMax + 1} {
						for _, other := range []uint8{0, 9} {
							ms := []wire.Message{
								{OrderingKey: strings.Repeat("k", key), Priority: priority, Delay: delay, DeliverAt: at, TTL: ttl},
								{Priority: other},
							}
							frame := wire.PublishFrame{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Floor: 1, Queue: "orders",
								Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("orders", ms), Messages: ms}}}
							machine := fsm.Check(fsm.KindPublish, encoded(frame), fsm.DefaultLimits())
							if table := wire.CheckOptions(ms); (table == nil) != (machine == nil) {
								t.Errorf("%+v: the machine says %v, the table %v", ms, machine, table)
							}
						}
					}
				}
			}
		}
	}
}

func TestWords_KindsAreOpcodes(t *testing.T) {
	for _, v := range []struct {
		k  fsm.Kind
		op wire.Op
	}{
		{fsm.KindOpenSession, wire.OpOpenSession}, {fsm.KindCloseSession, wire.OpCloseSession}, {fsm.KindPublish, wire.OpPublish},
		{fsm.KindSeal, wire.OpSeal}, {fsm.KindAttach, wire.OpAttach}, {fsm.KindLeave, wire.OpLeave}, {fsm.KindSettle, wire.OpSettle},
		{fsm.KindQueueCreate, wire.OpQueueCreate}, {fsm.KindQueueDelete, wire.OpQueueDelete}, {fsm.KindQueuePurge, wire.OpQueuePurge},
		{fsm.KindQueueUpdate, wire.OpQueueUpdate}, {fsm.KindQueuePause, wire.OpQueuePause}, {fsm.KindEdit, wire.OpEdit},
		{fsm.KindAckPublish, wire.OpAckPublish}, {fsm.KindReceive, wire.OpReceive}, {fsm.KindRelease, wire.OpRelease},
		{fsm.KindRestoreBegin, wire.OpRestoreBegin}, {fsm.KindRestoreChunk, wire.OpRestoreChunk}, {fsm.KindRestoreEnd, wire.OpRestoreEnd},
	} {
		if uint8(v.k) != uint8(v.op) {
			t.Errorf("kind %d, opcode %d (%v)", v.k, v.op, v.op)
		}
	}
}

func TestWords_LimitsAgree(t *testing.T) {
	for name, v := range map[string][2]int{
		"publishes":     {fsm.PublishesPerFrameMax, wire.PublishesMax},
		"messages":      {fsm.MessagesPerPublishMax, wire.MessagesMax},
		"headers":       {fsm.HeadersMax, wire.HeadersMax},
		"header names":  {fsm.HeaderNameBytesMax, wire.HeaderNameBytesMax},
		"header values": {fsm.HeaderValueBytesMax, wire.HeaderValueBytesMax},
		"biz ids":       {fsm.BizIDBytesMax, wire.BizIDBytesMax},
		"ordering keys": {fsm.OrderingKeyBytesMax, wire.OrderingKeyBytesMax},
		"queue names":   {fsm.QueueNameBytesMax, wire.QueueNameBytesMax},
		"session names": {fsm.SessionNameBytesMax, wire.SessionNameBytesMax},
		"sequences":     {fsm.SealSequencesMax, wire.SequencesMax},
		"ranges":        {fsm.RangesMax, wire.RangesMax},
		"reasons":       {fsm.ReasonBytesMax, wire.ReasonBytesMax},
		"nack delays":   {int(fsm.NackDelayMax), int(wire.NackDelayMax)},
		"lease times":   {int(fsm.LeaseTimeMax), int(wire.LeaseTimeMax)},
		"places":        {fsm.EditPlacesMax, wire.EditPlacesMax},
		"outputs":       {fsm.AckPublishQueuesMax, wire.AckPublishQueuesMax},
		"priorities":    {fsm.Priorities, wire.PriorityMax + 1},
		"delays":        {int(fsm.DelayMax), int(wire.DelayMax)},
		"peeks":         {fsm.PeekMax, wire.PeekMax},
		"receives":      {fsm.ReceiveMax, wire.ReceiveMax},
		"waits":         {int(fsm.ReceiveWaitMax), int(wire.ReceiveWaitMax)},
		"pulls":         {fsm.PullNumbersMax, wire.PullNumbersMax},
		"clusters":      {fsm.ClusterBytesMax, wire.ClusterBytesMax},
		"done slack":    {fsm.DoneSlack, wire.DoneSlack},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: machine %d, wire %d", name, v[0], v[1])
		}
	}
	if fsm.PayloadBytesMax < wire.PayloadBytesMax {
		t.Errorf("the machine takes payloads of %d bytes, a frame may carry %d", fsm.PayloadBytesMax, wire.PayloadBytesMax)
	}
	if entryBytesMax > fsm.EntryBytesMax {
		t.Errorf("entries of %d bytes are proposed, the machine takes %d", entryBytesMax, fsm.EntryBytesMax)
	}
	// README: a disk that answers nothing has so long. Raft appends one entry more at once than it is told.
	if most := (maxAppendEntries + 1) * entryBytesMax; most != 36<<20 {
		t.Errorf("an append has at most %d bytes", most)
	}
	if max := fsm.DefaultLimits().BodyBytesMax; max+(64<<10) > entryBytesMax {
		t.Errorf("a body of %d bytes does not fit an entry of %d", max, entryBytesMax)
	}
}

// TestWords_WhatTheWireEncodesTheMachineDecodes: a request's payload is, byte
// for byte, the payload of the command.
func TestWords_WhatTheWireEncodesTheMachineDecodes(t *testing.T) {
	ms := []wire.Message{{Body: []byte("body"), BizID: "order-17", Headers: []wire.Header{{Name: "a", Value: "b"}, {Name: "a", Value: "c"}}, Priority: 3, Delay: time.Minute, TTL: time.Hour},
		{Priority: 3, DeliverAt: 1}}
	for _, tc := range []struct {
		kind fsm.Kind
		m    appender
	}{
		{fsm.KindOpenSession, wire.OpenSession{Incarnation: 7, Group: 1, Named: true, Name: "orders-1", Label: "x", Nonce: wire.Nonce{1}}},
		{fsm.KindOpenSession, wire.OpenSession{Incarnation: 7, Group: 1, Nonce: wire.Nonce{1}}},
		{fsm.KindCloseSession, wire.CloseSession{Incarnation: 7, Group: 1, Session: 3, Epoch: 1}},
		{fsm.KindPublish, wire.PublishFrame{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Floor: 4, Queue: "orders", Publishes: []wire.Publish{
			{Sequence: 5, Checksum: wire.PublishChecksum("orders", ms), Messages: ms},
			{Sequence: 6, After: 5, Checksum: wire.PublishChecksum("orders", ms[:1]), Messages: ms[:1]},
		}}},
		{fsm.KindSeal, wire.Seal{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Sequences: []uint64{4, 9}}},
		{fsm.KindAttach, wire.Attach{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, N: 1, Queue: "orders", Credit: 10, Done: 1, Label: "x",
			Unsettled: []wire.Range{{From: 1, To: 3}, {From: 7, To: 7}}}},
		{fsm.KindLeave, wire.Leave{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, N: 1, Done: 1, NotHandled: []wire.Range{{From: 2, To: 3}}}},
		{fsm.KindSettle, wire.Settle{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, Done: 1, Items: []wire.SettleItem{
			{From: 1, To: 3, Verb: wire.VerbAck}, {From: 4, To: 4, Verb: wire.VerbNack, Time: time.Second, Reason: "no"}, {From: 5, To: 6, Verb: wire.VerbExtend},
			{From: 7, To: 7, Verb: wire.VerbReject, Reason: strings.Repeat("r", wire.ReasonBytesMax)}}}},
		{fsm.KindQueueCreate, wire.QueueCreate{Incarnation: 7, Group: 1, Name: "orders", Settings: wire.QueueSettings{LeaseTime: time.Minute, LengthMax: 9}}},
		{fsm.KindQueueCreate, wire.QueueCreate{Incarnation: 7, Group: 1, Name: "orders", Settings: wire.QueueSettings{LeaseTime: time.Minute, LengthMax: 9,
			BytesMax: 10, TTL: time.Hour, DeliveryLimit: 5, DeadLetter: "orders.dead", BackoffMin: time.Second, BackoffMax: time.Hour, SingleActive: true}}},
		{fsm.KindQueueUpdate, wire.QueueUpdate{Incarnation: 7, Group: 1, Number: 1, Revision: 2, Nonce: wire.Nonce{2}, Settings: wire.QueueSettings{BackoffMin: -1}}},
		{fsm.KindQueuePause, wire.QueuePause{Incarnation: 7, Group: 1, Number: 1, Paused: true}},
		{fsm.KindEdit, wire.Edit{Incarnation: 7, Group: 1, Number: 1, Verb: wire.EditMove, Target: "orders", Places: []wire.Place{{Lane: 9, Offset: 17}, {}}}},
		{fsm.KindAckPublish, wire.AckPublish{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Floor: 1, Sequence: 2, Consumer: wire.ConsumerID{1}, Number: 4, Done: 3,
			Checksum: wire.AckPublishChecksum(wire.ConsumerID{1}, 4, []wire.Output{{Queue: "a", Messages: ms}, {Queue: "b", Messages: ms[:1]}}),
			Outputs:  []wire.Output{{Queue: "a", Messages: ms}, {Queue: "b", Messages: ms[:1]}}}},
		{fsm.KindReceive, wire.Receive{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, Queue: "orders", Label: "x", First: 1, Done: 1, Limit: wire.ReceiveMax, Wait: wire.ReceiveWaitMax}},
		{fsm.KindRelease, wire.Release{Incarnation: 7, Group: 1, Consumer: wire.ConsumerID{1}, Queue: "orders", First: 4, Done: 2}},
		{fsm.KindQueueDelete, wire.QueueDelete{Incarnation: 7, Group: 1, Number: 1}},
		{fsm.KindQueuePurge, wire.QueuePurge{Incarnation: 7, Group: 1, Number: 1, Revision: 2, Nonce: wire.Nonce{2}}},
	} {
		payload := encoded(tc.m)
		if err := fsm.Check(tc.kind, payload, fsm.DefaultLimits()); err != nil {
			t.Errorf("kind %d: %v", tc.kind, err)
		}
		if len(payload) > 1 {
			if err := fsm.Check(tc.kind, payload[:len(payload)-1], fsm.DefaultLimits()); err == nil {
				t.Errorf("kind %d: accepted without its last byte", tc.kind)
			}
		}
	}
}

// TestWords_AWrongChecksumIsNotAccepted: the machine computes what the wire
// computes.
func TestWords_AWrongChecksumIsNotAccepted(t *testing.T) {
	ms := []wire.Message{{Body: []byte("body")}}
	frame := wire.PublishFrame{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Floor: 1, Queue: "orders",
		Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("orders", ms) + 1, Messages: ms}}}
	err := fsm.Check(fsm.KindPublish, encoded(frame), fsm.DefaultLimits())
	var check *fsm.CheckError
	if !errors.As(err, &check) {
		t.Fatalf("a checksum that is wrong by one: %v", err)
	}
}

func TestWords_ABodyOverTheLimitIsTooLarge(t *testing.T) {
	limits := fsm.DefaultLimits()
	ms := []wire.Message{{Body: []byte(strings.Repeat("x", limits.BodyBytesMax+1))}}
	frame := wire.PublishFrame{Incarnation: 7, Group: 1, Session: 3, Epoch: 1, Floor: 1, Queue: "orders",
		Publishes: []wire.Publish{{Sequence: 1, Checksum: wire.PublishChecksum("orders", ms), Messages: ms}}}
	e := refusedByCheck(fsm.Check(fsm.KindPublish, encoded(frame), limits))
	if e.Code != wire.CodeTooLarge {
		t.Fatalf("refused with %v", e.Code)
	}
}

func TestForeign_AnotherClustersRequestIsRefusedBeforeTheLog(t *testing.T) {
	g := &group{life: newLife(7)}
	for _, tc := range []struct {
		incarnation uint64
		group       uint32
		want        wire.Code
	}{{7, 1, 0}, {8, 1, wire.CodeWrongCluster}, {7, 2, wire.CodeWrongGroup}} {
		e := g.foreign(wire.OpCloseSession, encoded(wire.CloseSession{Incarnation: tc.incarnation, Group: tc.group, Session: 1, Epoch: 1}))
		if (e == nil) != (tc.want == 0) || e != nil && e.Code != tc.want {
			t.Errorf("incarnation %d, group %d: %+v, want %v", tc.incarnation, tc.group, e, tc.want)
		}
	}
	var w pack.Writer
	w.Str("not an array")
	if e := g.foreign(wire.OpPublish, w.Bytes()); e == nil || e.Code != wire.CodeMalformed {
		t.Errorf("garbage: %+v", e)
	}
}
