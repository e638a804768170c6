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
	} {
		if uint8(v.m) != uint8(v.w) {
			t.Errorf("machine %d, wire %d (%v)", v.m, v.w, v.w)
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
	if max := fsm.DefaultLimits().BodyBytesMax; max+(64<<10) > entryBytesMax {
		t.Errorf("a body of %d bytes does not fit an entry of %d", max, entryBytesMax)
	}
}

// TestWords_WhatTheWireEncodesTheMachineDecodes: a request's payload is, byte
// for byte, the payload of the command.
func TestWords_WhatTheWireEncodesTheMachineDecodes(t *testing.T) {
	ms := []wire.Message{{Body: []byte("body"), BizID: "order-17", Headers: []wire.Header{{Name: "a", Value: "b"}, {Name: "a", Value: "c"}}}, {}}
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
			{From: 1, To: 3, Verb: wire.VerbAck}, {From: 4, To: 4, Verb: wire.VerbNack, Time: time.Second}, {From: 5, To: 6, Verb: wire.VerbExtend}}}},
		{fsm.KindQueueCreate, wire.QueueCreate{Incarnation: 7, Group: 1, Name: "orders", Settings: wire.QueueSettings{LeaseTime: time.Minute, LengthMax: 9}}},
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
	g := &group{incarnation: 7}
	for _, tc := range []struct {
		incarnation uint64
		group       uint32
		want        wire.Code
	}{{7, 1, 0}, {8, 1, wire.CodeWrongCluster}, {7, 2, wire.CodeWrongGroup}} {
		e := g.foreign(encoded(wire.CloseSession{Incarnation: tc.incarnation, Group: tc.group, Session: 1, Epoch: 1}))
		if (e == nil) != (tc.want == 0) || e != nil && e.Code != tc.want {
			t.Errorf("incarnation %d, group %d: %+v, want %v", tc.incarnation, tc.group, e, tc.want)
		}
	}
	var w pack.Writer
	w.Str("not an array")
	if e := g.foreign(w.Bytes()); e == nil || e.Code != wire.CodeMalformed {
		t.Errorf("garbage: %+v", e)
	}
}
