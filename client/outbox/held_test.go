package outbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"onceq/client"
)

// consume takes n messages from orders and returns their biz-ids.
func consume(t *testing.T, c *client.Client, n int) (got []string) {
	t.Helper()
	ctx, stop := context.WithCancel(bounded(t))
	defer stop()
	err := c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
		if got = append(got, d.BizID()); len(got) == n {
			stop()
		}
		return nil
	}, client.WithConcurrency(1), client.WithPrefetch(32))
	if err != nil || len(got) < n {
		t.Fatalf("consumed %d of %d: %v", len(got), n, err)
	}
	return got
}

func endSession(t *testing.T, c *client.Client, name string) {
	t.Helper()
	all, err := c.Admin().Sessions(bounded(t), 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			if err := c.Admin().EndSession(bounded(t), s); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no session %q in %+v", name, all)
}

// held waits until so many entries are held.
func held(t *testing.T, b *Outbox, n int) []Entry {
	t.Helper()
	eventually(t, "entries are held", func() bool { return b.Stats().Held == n })
	es, err := b.Held(0, 100)
	if err != nil || len(es) != n {
		t.Fatalf("held %+v, %v", es, err)
	}
	return es
}

// sessionFloor is what the cluster has been told to be the floor of a session.
func sessionFloor(t *testing.T, c *client.Client, name string) uint64 {
	t.Helper()
	all, err := c.Admin().Sessions(bounded(t), 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s.Floor
		}
	}
	return 0
}

// An operator ends the session while an entry is in flight and two wait. What may be
// stored is for somebody to decide; what never left goes on.
func TestSessionEnded_WhatMayBeStoredIsHeldAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 3, client.QueueSettings{LengthMax: 1})
	b := open(t, path(t), WithClient(c), WithName("svc"), WithMaxInFlight(1))
	ns := publish(t, b, ids("a", 1, 4)...)
	if _, err := b.Wait(bounded(t), ns[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second was sent", func() bool { return sessionFloor(t, c, "svc") == 2 })
	endSession(t, c, "svc")

	es := held(t, b, 1)
	e := es[0]
	if e.Number != ns[1] || e.Reason != SessionLost || e.State != Held || e.ID.Sequence != 2 || e.Messages[0].BizID != "a2" || e.HeldAt.IsZero() {
		t.Errorf("held %+v", e)
	}
	_, err := b.Wait(bounded(t), ns[1])
	if h := heldError(t, err, SessionLost); h.ID != e.ID || !h.Reason.MayBeStored() {
		t.Errorf("error %+v", h)
	}
	same(t, "consumed", consume(t, c, 3), []string{"a1", "a3", "a4"})

	// Nothing is decided without its risk.
	if err := b.Resend(NoRisk, ns[1]); !errors.Is(err, ErrRisk) {
		t.Errorf("resend without a risk: %v", err)
	}
	if err := b.Discard(NoRisk, ns[1]); !errors.Is(err, ErrRisk) {
		t.Errorf("discard without a risk: %v", err)
	}
	if err := b.Discard(MayBeStoredTwice, ns[1]); !errors.Is(err, ErrRisk) {
		t.Errorf("discard with another risk: %v", err)
	}
	if err := b.Resend(MayBeStoredTwice, ns[1], ns[3]); !errors.Is(err, ErrNoEntry) {
		t.Errorf("resend of what is not held: %v", err)
	}
	held(t, b, 1)
	if err := b.Resend(MayBeStoredTwice, ns[1], ns[1]); err != nil {
		t.Fatal(err)
	}
	if r, err := b.Wait(bounded(t), ns[1]); err != nil || r.Duplicate {
		t.Errorf("resent: %+v, %v", r, err)
	}
	same(t, "queue", stored(t, c), []string{"a2"})
	if s := b.Stats(); s.Held+s.Waiting+s.Sent+s.Bytes != 0 || s.Stored != 4 {
		t.Errorf("stats %+v", s)
	}
}

// The session is ended while the process is away: after its start it cannot know
// what was in flight.
func TestSessionEndedWhileAway_WhatWasInFlightIsHeld(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{LengthMax: 1})
	file := path(t)
	b := open(t, file, WithClient(c), WithName("svc"), WithMaxInFlight(2))
	ns := publish(t, b, ids("a", 1, 4)...)
	eventually(t, "two are in flight", func() bool { s := b.Stats(); return s.Sent == 2 && s.Waiting == 1 })
	shut(t, b)
	endSession(t, c, "svc")

	f, err := OpenFile(file, true)
	if err != nil {
		t.Fatal(err)
	}
	w, s, h := f.Counts()
	if f.Queue() != "orders" || f.Name() != "svc" || f.Cluster() != c.Cluster() || w != 1 || s != 2 || h != 0 {
		t.Errorf("file %+v", f)
	}
	if es, err := f.List(0, 10); err != nil || len(es) != 3 || es[0].State != Sent || es[2].State != Waiting || es[2].Messages[0].BizID != "a4" {
		t.Errorf("list %+v, %v", es, err)
	}
	if err := f.Resend(MayBeStoredTwice, ns[1]); err == nil {
		t.Error("a file opened for looking was changed")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, file, WithClient(c), WithMaxInFlight(2))
	held(t, b, 2)
	shut(t, b)
	// The operator's tool decides; the program sends.
	if f, err = OpenFile(file, false); err != nil {
		t.Fatal(err)
	}
	if err := f.Resend(MayBeStoredTwice, ns[1]); err != nil {
		t.Fatal(err)
	}
	if w, s, h := f.Counts(); w+s != 2 || h != 1 {
		t.Errorf("%d wait, %d sent, %d held", w, s, h)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, file, WithClient(c))
	if err := b.Discard(MayNeverBeStored, ns[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Wait(bounded(t), ns[2]); !errors.Is(err, ErrDiscarded) {
		t.Errorf("discarded: %v", err)
	}
	got := consume(t, c, 3)
	if len(got) != 3 || got[0] != "a1" {
		t.Errorf("consumed %v", got)
	}
	flush(t, b)
	if s := b.Stats(); s.Held+s.Waiting+s.Sent+s.Bytes != 0 || s.Discarded != 1 {
		t.Errorf("stats %+v", s)
	}
	// After a restart nothing is known of them.
	shut(t, b)
	b = open(t, file, WithClient(c))
	if _, err := b.Wait(bounded(t), ns[2]); !errors.Is(err, ErrLeft) {
		t.Errorf("after a restart: %v", err)
	}
}

// A copy of the file goes on where the original was. Each of the two takes the
// session from the other; what the other has gone past is no success.
func TestCopyOfTheFile_FencesAndHoldsWhatItCannotJudge(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 3, client.QueueSettings{LengthMax: 1})
	original, copied := path(t), path(t)
	b := open(t, original, WithClient(c))
	ns := publish(t, b, ids("a", 1, 3)...)
	eventually(t, "two are in flight", func() bool { return b.Stats().Sent == 2 })
	shut(t, b)
	bytes, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, bytes, 0o600); err != nil {
		t.Fatal(err)
	}

	b = open(t, original, WithClient(c))
	eventually(t, "it has the session", func() bool { return b.Stats().Session != "" })
	other := open(t, copied, WithClient(c))
	publish(t, other, "b1")
	eventually(t, "one of them is fenced", func() bool { return errors.Is(b.Err(), client.ErrFenced) || errors.Is(other.Err(), client.ErrFenced) })
	if errors.Is(other.Err(), client.ErrFenced) {
		t.Fatal("the one that came later is fenced")
	}
	if _, err := b.Publish(bounded(t), client.Message{BizID: "never"}); !errors.Is(err, client.ErrFenced) {
		t.Errorf("publish of the fenced one: %v", err)
	}
	if _, err := b.Wait(bounded(t), ns[1]); !errors.Is(err, client.ErrFenced) {
		t.Errorf("wait of the fenced one: %v", err)
	}
	if es, err := b.List(0, 10); err != nil || len(es) != 2 || es[0].State != Sent {
		t.Errorf("the fenced one has %+v, %v", es, err)
	}
	same(t, "consumed", consume(t, c, 4), []string{"a1", "a2", "a3", "b1"})
	flush(t, other)
	publish(t, other, "b2") // raises the floor
	flush(t, other)
	shut(t, b)

	b = open(t, original, WithClient(c))
	es := held(t, b, 2)
	if es[0].Reason != BelowFloor || es[0].Number != ns[1] || !es[0].Reason.MayBeStored() {
		t.Errorf("held %+v", es)
	}
	eventually(t, "the other is fenced", func() bool {
		_, _ = other.Publish(bounded(t), client.Message{BizID: "c"})
		return errors.Is(other.Err(), client.ErrFenced)
	})
}

// Somebody seals what is in flight, with "onceq outcome --seal": it is not stored
// and never will be, and may be sent again without a risk.
func TestSealedByAnOperator_IsHeldAsRefused(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 3, client.QueueSettings{LengthMax: 1})
	b := open(t, path(t), WithClient(c))
	ns := publish(t, b, ids("a", 1, 3)...)
	eventually(t, "two are in flight", func() bool { return b.Stats().Sent == 2 })
	e, err := b.Entry(ns[1])
	if err != nil {
		t.Fatal(err)
	}
	if o, err := c.Seal(bounded(t), e.ID); err != nil || o.State != client.Never {
		t.Fatalf("seal: %+v, %v", o, err)
	}
	same(t, "consumed", consume(t, c, 2), []string{"a1", "a3"})
	es := held(t, b, 1)
	if es[0].Reason != Refused || es[0].Number != ns[1] || es[0].Reason.MayBeStored() {
		t.Errorf("held %+v", es)
	}
	if err := b.Resend(NoRisk, ns[1]); err != nil {
		t.Fatal(err)
	}
	flush(t, b)
	same(t, "queue", stored(t, c), []string{"a2"})
}

// The file was in use with one cluster and is pointed at another.
func TestAnotherCluster_NothingIsSentToIt(t *testing.T) {
	t.Parallel()
	_, mine := cluster(t, 1, client.QueueSettings{})
	_, wrong := cluster(t, 1, client.QueueSettings{})
	file := path(t)
	b := open(t, file, WithClient(mine))
	publish(t, b, "a1")
	flush(t, b)
	shut(t, b)
	b = open(t, file, WithClient(wrong))
	publish(t, b, "a2")
	eventually(t, "the trouble is shown", func() bool {
		err := b.Stats().Trouble
		return errors.Is(err, ErrMismatch) && errors.Is(err, client.ErrWrongCluster)
	})
	shut(t, b)
	b = open(t, file, WithClient(mine))
	flush(t, b)
	same(t, "queue", stored(t, mine), ids("a", 1, 2))
	if got := stored(t, wrong); len(got) != 0 {
		t.Errorf("the wrong cluster has %v", got)
	}
}

// The cluster goes back to a backup while an entry is in flight. What came after the
// backup cannot be judged, and is held.
func TestRestored_WhatTheBackupDoesNotKnowIsHeld(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{LengthMax: 1})
	b := open(t, path(t), WithClient(c), WithName("svc"), WithMaxInFlight(1))
	ns := publish(t, b, ids("a", 1, 3)...)
	if _, err := b.Wait(bounded(t), ns[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second was sent", func() bool { return sessionFloor(t, c, "svc") == 2 })
	var backup bytes.Buffer
	if _, err := c.Admin().Backup(bounded(t), &backup, client.BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().Restore(bounded(t), &backup, client.RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	e := held(t, b, 1)[0]
	if e.Number != ns[1] || e.Reason != OtherLife || !e.Reason.MayBeStored() || e.ID.Sequence != 2 {
		t.Errorf("held %+v", e)
	}
	// What had never left goes on in the new life, and what is held when told to.
	if err := b.Resend(MayBeStoredTwice, ns[1]); err != nil {
		t.Fatal(err)
	}
	if got := consume(t, c, 3); got[0] != "a1" {
		t.Errorf("consumed %v", got)
	}
	flush(t, b)
	if s := b.Stats(); s.Stored != 3 || s.Held != 0 {
		t.Errorf("stats %+v", s)
	}
}

// All disks of the cluster are lost, and its backup is restored in a new one: the outbox
// knows it again, as connected clients do.
func TestRestored_IntoAnotherCluster_GoesOn(t *testing.T) {
	t.Parallel()
	_, before := cluster(t, 1, client.QueueSettings{})
	file := path(t)
	b := open(t, file, WithClient(before), WithName("svc"))
	publish(t, b, "a1")
	flush(t, b)
	var backup bytes.Buffer
	if _, err := before.Admin().Backup(bounded(t), &backup, client.BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "a2") // the backup does not know it
	flush(t, b)
	shut(t, b)
	cl, admin := cluster(t, 1, client.QueueSettings{})
	if _, err := admin.Admin().Restore(bounded(t), &backup, client.RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	now := cl.Client()
	if before.Cluster() == now.Cluster() {
		t.Fatal("it is the same cluster")
	}
	for _, id := range []string{"a3", "a4"} { // and opened once more, when its file knows the new one
		b = open(t, file, WithClient(now))
		publish(t, b, id)
		flush(t, b)
		shut(t, b)
	}
	same(t, "queue", stored(t, now), []string{"a1", "a3", "a4"})
}
