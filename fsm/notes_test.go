package fsm_test

import (
	"strings"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// nack gives deliveries back with a reason.
func nack(c byte, from, to uint64, delay time.Duration, reason string) fsmtest.Command {
	return fsmtest.New(wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{c}, Done: 1, Items: []wire.SettleItem{{From: from, To: to, Verb: wire.VerbNack, Time: delay, Reason: reason}}})
}

// TestNotes_OneReasonForMany_IsKeptOnce: those of one item share its text, and a message
// that is restored has what it repeats once.
func TestNotes_OneReasonForMany_IsKeptOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1), stored(1, "q", make([]wire.Message, 100)...), attach(1, 1, "q", 100))
	m.apply(nack(1, 1, 100, time.Hour, strings.Repeat("x", fsm.ReasonBytesMax)))
	if n := fsm.NoteTexts(m.Machine); n != 1 {
		t.Errorf("100 messages keep %d copies of one reason", n)
	}
	if n := fsm.NoteTexts(sameAsRestored(t, m, fsm.Limits{})); n != 100 {
		t.Errorf("restored, 100 messages keep %d", n)
	}
}

// TestNotes_AtTheCap_AreKeptWithoutText: what happened, when and in which attempt is
// remembered all the same, and texts again when there is room.
func TestNotes_AtTheCap_AreKeptWithoutText(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{NotesBytesMax: 30} // of a text of ten bytes: first, last, and one event
	m := newMachine(t, limits)
	text := strings.Repeat("x", 10)
	m.apply(newest(), create("q"), create("other"), open(1), stored(1, "q", wire.Message{}, wire.Message{}), attach(1, 1, "q", 2))
	m.apply(nack(1, 1, 2, time.Hour, text))
	look := func(offset uint64) fsm.MessageInfo {
		t.Helper()
		l, _ := m.LookAt("q", 0, offset)
		if !m.LookOn(l) || len(l.Found()) != 1 {
			t.Fatalf("offset %d: %+v", offset, l.Found())
		}
		return l.Found()[0]
	}
	a, b := look(0), look(1)
	if a.FirstError != text || a.LastError != text || a.Events[0].Text != text {
		t.Errorf("within the cap: %+v", a)
	}
	if e := b.Events; b.FirstError+b.LastError != "" || b.Failures != 1 || len(e) != 1 || e[0].Kind != fsm.EventNacked || e[0].Attempt != 1 || e[0].Text != "" {
		t.Errorf("at the cap: %+v", b)
	}
	m.Machine = sameAsRestored(t, m, limits)
	m.apply(fsmtest.New(wire.Edit{Incarnation: inc, Group: grp, Number: 1, Nonce: wire.Nonce{1}, Verb: wire.EditMove, Target: "other", Places: []wire.Place{{Offset: 0, Turn: 2}}}))
	m.now += time.Hour
	m.apply()
	sameAsRestored(t, m, limits)
	m.apply(nack(1, 3, 3, time.Hour, text))
	if b = look(1); b.FirstError+b.LastError != "" {
		t.Errorf("a message that was moved remembers what it did, and yet: %+v", b)
	}
	m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 2, Revision: 1, Nonce: wire.Nonce{9}}))
	m.now += time.Hour
	m.apply()
	m.apply(nack(1, 4, 4, time.Hour, text))
	if b = look(1); b.FirstError != text || b.LastError != text || b.Events[len(b.Events)-1].Text != text {
		t.Errorf("after the purge of what had remembered: %+v", b)
	}
	sameAsRestored(t, m, limits)
}

// TestNotes_BeforeTheBound_AreKept: a machine of an older version remembers all.
func TestNotes_BeforeTheBound_AreKept(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{NotesBytesMax: 1})
	m.apply(create("q"), open(1), stored(1, "q", wire.Message{}), attach(1, 1, "q", 1))
	m.apply(nack(1, 1, 1, time.Hour, "why"))
	found, _ := m.Peek("q", fsm.MessageDelayed, fsm.MessageInfo{}, 1)
	if len(found) != 1 || found[0].LastError != "why" {
		t.Errorf("%+v", found)
	}
}
