package fsm_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// stored publishes messages under a sequence that nothing is waited for.
func stored(sequence uint64, queue string, ms ...wire.Message) fsmtest.Command {
	return fsmtest.New(wire.PublishFrame{
		Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: sequence, Queue: queue,
		Publishes: []wire.Publish{{Sequence: sequence, Checksum: wire.PublishChecksum(queue, ms), Messages: ms}},
	})
}

func newest() fsmtest.Command { return fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}) }

// sameAsRestored compares a machine with one that is restored from its snapshot.
func sameAsRestored(t *testing.T, m *machine, limits fsm.Limits) *fsm.Machine {
	t.Helper()
	again := fsm.New(fsm.Config{Group: grp, Limits: limits}, storage.NewMemory())
	restore(t, m.Machine, again)
	if again.Digest() != m.Digest() {
		t.Fatalf("a restored replica differs: %v", fsm.DifferentRows(m.Machine, again))
	}
	for _, x := range []*fsm.Machine{m.Machine, again} {
		if wrong := append(fsm.WrongSums(x), fsm.StaleRows(x)...); wrong != nil {
			t.Fatal(wrong)
		}
	}
	return again
}

// TestGone_BehindAMessageThatNobodyReads_CostsNothing: what comes and ends behind the
// first message of a queue without a consumer does not count against the cap of
// messages with a record, which is for what is there.
func TestGone_BehindAMessageThatNobodyReads_CostsNothing(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{IndexedMax: 10}
	m := newMachine(t, limits)
	m.apply(newest(), create("q"), create("other"), open(1), stored(1, "q", wire.Message{Body: []byte("first")}))
	seq := uint64(1)
	for i := range 10 {
		for _, x := range []wire.Message{{TTL: time.Second}, {Delay: time.Hour}} {
			seq++
			if r := m.apply(stored(seq, "q", x)).Results[0].Publish[0]; r.Status != fsm.StatusOK {
				t.Fatalf("message %d is refused: %v", seq, wire.Status(r.Status))
			}
		}
		m.apply(fsmtest.New(wire.Edit{Incarnation: inc, Group: grp, Number: 1, Nonce: wire.Nonce{byte(i + 1)}, Verb: wire.EditDelete, Places: []wire.Place{{Offset: seq - 1}}}))
		m.now += 2 * time.Second
		m.apply()
	}
	if c, n := m.Counts(), fsm.GoneRanges(m.Machine, "q"); c.Messages != 1 || c.Indexed != 0 || n != 1 {
		t.Errorf("%d messages with %d records, and %d ranges of what is gone", c.Messages, c.Indexed, n)
	}
	if r := m.apply(stored(seq+1, "other", wire.Message{OrderingKey: "k"})).Results[0].Publish[0]; r.Status != fsm.StatusOK {
		t.Errorf("a message with a key to another queue: %v", wire.Status(r.Status))
	}
	m.apply(stored(seq+2, "q", wire.Message{Body: []byte("last")}))
	again := sameAsRestored(t, m, limits)
	for _, x := range []*fsm.Machine{m.Machine, again} {
		if found, _ := x.Peek("q", fsm.MessageReady, fsm.MessageInfo{}, 10); len(found) != 2 || found[1].Offset != 21 {
			t.Errorf("a look finds %+v", found)
		}
		if look, _ := x.LookAt("q", 0, 7); !x.LookOn(look) || len(look.Found()) != 0 {
			t.Errorf("a look at what is gone finds %+v", look.Found())
		}
		if look, _ := x.Look("q", fsm.MessageReady, fsm.MessageInfo{}, 10); !x.LookOn(look) || fsm.Visited(look) > 12 {
			t.Errorf("a look visits %d places", fsm.Visited(look))
		}
	}
	m.Machine = again
	for verb := wire.EditDelete; verb <= wire.EditMove; verb++ {
		e := wire.Edit{Incarnation: inc, Group: grp, Number: 1, Nonce: wire.Nonce{99}, Verb: verb, Places: []wire.Place{{Offset: 7}, {Offset: 7, Turn: 2}}}
		if verb == wire.EditMove {
			e.Target = "other"
		}
		if r := m.apply(fsmtest.New(e)).Results[0]; r.Edits[0] != fsm.EditNotHere || r.Edits[1] != fsm.EditNotHere {
			t.Errorf("edit %d of what is gone: %v", verb, r.Edits)
		}
	}
	ds := m.apply(attach(1, 1, "q", 5)).Deliveries
	if len(ds) != 2 || ds[0].Offset != 0 || ds[1].Offset != 21 {
		t.Errorf("delivered: %+v", ds)
	}
	if n := fsm.GoneRanges(m.Machine, "q"); n != 0 {
		t.Errorf("%d ranges are left behind the head", n)
	}
	sameAsRestored(t, m, limits)
}

// TestGone_AnyOrder_RangesAreWhatIsGone takes messages out of a long lane in a random
// order, and hands out what is left.
func TestGone_AnyOrder_RangesAreWhatIsGone(t *testing.T) {
	t.Parallel()
	const n = 5000
	random := rand.New(rand.NewPCG(1, 2))
	limits := fsm.Limits{}
	m := newMachine(t, limits)
	m.apply(newest(), create("q"), open(1), stored(1, "q", make([]wire.Message, n)...))
	gone := [n]bool{}
	order := random.Perm(n)
	for round := byte(1); len(order) > 200; round++ {
		k := min(1+random.IntN(700), len(order)-200)
		e := wire.Edit{Incarnation: inc, Group: grp, Number: 1, Nonce: wire.Nonce{round}, Verb: wire.EditDelete}
		for _, at := range order[:k] {
			gone[at] = true
			e.Places = append(e.Places, wire.Place{Offset: uint64(at)})
		}
		order = order[k:]
		for _, st := range m.apply(fsmtest.New(e)).Results[0].Edits {
			if st != fsm.EditDone {
				t.Fatalf("round %d: an edit is answered with %d", round, st)
			}
		}
		if round%3 == 0 {
			m.BeginCopy()
			m.CopySome(1<<10, nil)
		}
		again := sameAsRestored(t, m, limits)
		for _, x := range []*fsm.Machine{m.Machine, again} {
			if err := fsm.Audit(x); err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(2) == 0 {
			m.Machine = again
		}
	}
	left := []uint64{}
	for at, is := range gone {
		if !is {
			left = append(left, uint64(at))
		}
	}
	ds := m.apply(attach(1, 1, "q", 1000)).Deliveries
	if len(ds) != len(left) {
		t.Fatalf("%d are handed out of %d", len(ds), len(left))
	}
	for i, d := range ds {
		if d.Offset != left[i] {
			t.Fatalf("delivery %d is of offset %d, not %d", i, d.Offset, left[i])
		}
	}
	if fsm.GoneRanges(m.Machine, "q") != 0 {
		t.Error("ranges are left behind the head")
	}
	sameAsRestored(t, m, limits)
}

// TestGone_BeforeTheRaise_RecordsStayUntilTheHeadPasses: a machine of an older version
// keeps a record of what is gone, and a newer one goes on with it.
func TestGone_BeforeTheRaise_RecordsStayUntilTheHeadPasses(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	end := func(sequence uint64) {
		m.apply(stored(sequence, "q", wire.Message{TTL: time.Second}))
		m.now += 2 * time.Second
		m.apply()
	}
	m.apply(fsmtest.New(fsmtest.Raise{Version: 3}), create("q"), open(1), stored(1, "q", wire.Message{}))
	end(2)
	end(3)
	if c, n := m.Counts(), fsm.GoneRanges(m.Machine, "q"); c.Indexed != 2 || n != 0 {
		t.Fatalf("with version 3: %d records, %d ranges", c.Indexed, n)
	}
	old := fsm.New(fsm.Config{Group: grp, Version: 3}, storage.NewMemory())
	restore(t, m.Machine, old) // as an older build would
	m.apply(newest())
	end(4)
	end(5)
	if c, n := m.Counts(), fsm.GoneRanges(m.Machine, "q"); c.Indexed != 2 || n != 1 {
		t.Fatalf("after the raise: %d records, %d ranges", c.Indexed, n)
	}
	m.apply(stored(6, "q", wire.Message{}))
	m.Machine = sameAsRestored(t, m, fsm.Limits{})
	if err := fsm.Audit(m.Machine); err != nil {
		t.Error(err)
	}
	ds := m.apply(attach(1, 1, "q", 5)).Deliveries
	if len(ds) != 2 || ds[1].Offset != 5 {
		t.Errorf("delivered: %+v", ds)
	}
	if c, n := m.Counts(), fsm.GoneRanges(m.Machine, "q"); c.Indexed != 0 || n != 0 {
		t.Errorf("in the end: %d records, %d ranges", c.Indexed, n)
	}
	sameAsRestored(t, m, fsm.Limits{})
}

// TestGone_Purged_LeavesNothing: also in the digest, and in a snapshot whose copy was
// begun before.
func TestGone_Purged_LeavesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(newest(), create("q"), create("other"), open(1))
	seq := uint64(0)
	for range 5 {
		for _, q := range []string{"q", "other"} {
			seq++
			m.apply(stored(seq, q, wire.Message{}, wire.Message{TTL: time.Second}, wire.Message{Priority: 0, TTL: time.Second}))
		}
	}
	m.now += 2 * time.Second
	m.apply()
	m.Digest()
	m.BeginCopy()
	m.CopySome(1<<20, nil)
	if n := fsm.GoneRanges(m.Machine, "q"); n != 5 {
		t.Fatalf("%d ranges", n)
	}
	if r := m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{9}})).Results[0]; r.Removed != 5 {
		t.Fatalf("%+v", r)
	}
	if a, b := fsm.GoneRanges(m.Machine, "q"), fsm.GoneRanges(m.Machine, "other"); a != 0 || b != 5 {
		t.Errorf("%d and %d ranges after a purge", a, b)
	}
	sameAsRestored(t, m, fsm.Limits{})
	m.apply(fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 2, Force: true}))
	sameAsRestored(t, m, fsm.Limits{})
}

// TestGone_AtTheCapOfRanges: what could leave one more is refused, and taken again when
// the head has passed one.
func TestGone_AtTheCapOfRanges(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{GoneRangesMax: 2})
	m.apply(newest(), create("q"), create("other"), open(1))
	status := func(sequence uint64, x wire.Message) fsm.Status {
		return m.apply(stored(sequence, "other", x)).Results[0].Publish[0].Status
	}
	edit := func(nonce byte, verb wire.EditVerb, offset uint64) fsm.EditState {
		e := wire.Edit{Incarnation: inc, Group: grp, Number: 1, Nonce: wire.Nonce{nonce}, Verb: verb, Places: []wire.Place{{Offset: offset}}}
		if verb == wire.EditMove {
			e.Target = "other"
		}
		return m.apply(fsmtest.New(e)).Results[0].Edits[0]
	}
	m.apply(stored(1, "q", make([]wire.Message, 9)...), stored(2, "q", wire.Message{TTL: time.Hour}))
	if a, b := edit(1, wire.EditDelete, 2), edit(2, wire.EditDelete, 4); a != fsm.EditDone || b != fsm.EditDone {
		t.Fatalf("up to the cap: %d, %d", a, b)
	}
	for _, c := range []struct {
		verb   wire.EditVerb
		offset uint64
	}{{wire.EditDelete, 6}, {wire.EditMove, 6}, {wire.EditMove, 9}} {
		if st := edit(3, c.verb, c.offset); st != fsm.EditCapped {
			t.Errorf("edit %d of offset %d at the cap: %d", c.verb, c.offset, st)
		}
	}
	if st := status(3, wire.Message{Delay: time.Second}); st != fsm.StatusIndexCap {
		t.Errorf("a delayed message at the cap: %v", wire.Status(st))
	}
	if st := status(4, wire.Message{}); st != fsm.StatusOK {
		t.Errorf("a plain message at the cap: %v", wire.Status(st))
	}
	if st := edit(4, wire.EditDelete, 0); st != fsm.EditDone {
		t.Errorf("a delete of the first message at the cap: %d", st)
	}
	if ds := m.apply(attach(1, 1, "q", 1)).Deliveries; len(ds) != 1 || ds[0].Offset != 1 {
		t.Fatalf("%+v", ds)
	}
	if st := status(5, wire.Message{Delay: time.Second}); st != fsm.StatusOK {
		t.Errorf("a delayed message below the cap: %v", wire.Status(st))
	}
	sameAsRestored(t, m, fsm.Limits{GoneRangesMax: 2})
}

// TestGone_ManyPasses_ComeInSteps: a head passes a range at a time, and a budget's worth
// of them in one entry.
func TestGone_ManyPasses_ComeInSteps(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{PassBudget: 3}
	m := newMachine(t, limits)
	m.apply(newest(), create("q"), open(1))
	// Records and what is gone by turns, in front of one plain message.
	ms := make([]wire.Message, 0, 21)
	ms = append(ms, wire.Message{})
	for range 10 {
		ms = append(ms, wire.Message{TTL: time.Second}, wire.Message{TTL: time.Hour})
	}
	m.apply(stored(1, "q", append(ms, wire.Message{})...))
	m.now += 2 * time.Second
	m.apply()
	eff := m.apply(attach(1, 1, "q", 100))
	var offsets []uint64
	for entries := 0; ; entries++ {
		for _, d := range eff.Deliveries {
			offsets = append(offsets, d.Offset)
		}
		again := sameAsRestored(t, m, limits)
		if !eff.More {
			if entries < 5 {
				t.Errorf("20 passes of 3 in %d entries", entries+1)
			}
			break
		}
		if eff = m.apply(); entries > 100 {
			t.Fatal("it does not end")
		}
		if _, err := again.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0)); err != nil || again.Digest() != m.Digest() {
			t.Fatalf("a replica that was restored goes on differently: %v", fsm.DifferentRows(m.Machine, again))
		}
	}
	if len(offsets) != 12 || offsets[11] != 21 {
		t.Errorf("delivered: %v", offsets)
	}
}

// TestGone_Backup_BringsTheRanges, and one whose ranges contradict the rest is refused.
func TestGone_Backup_BringsTheRanges(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(newest(), create("q"), open(1))
	m.apply(stored(1, "q", wire.Message{}, wire.Message{TTL: time.Second}, wire.Message{TTL: time.Second}, wire.Message{}, wire.Message{TTL: time.Second}, wire.Message{TTL: time.Hour}, wire.Message{}))
	m.now += 2 * time.Second
	m.apply()
	b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: grp})
	if err != nil {
		t.Fatal(err)
	}
	if b.Head.Messages != 4 {
		t.Errorf("%+v", b.Head)
	}
	other := newMachine(t, fsm.Limits{})
	other.apply(newest(), b.Begin(inc, 5, 0, true))
	other.apply(b.Chunks(inc, 5)...)
	if r := other.apply(b.End(inc, 5, false)).Results[0]; r.Status != fsm.StatusOK {
		t.Fatalf("%+v", r.Restore)
	}
	if n := fsm.GoneRanges(other.Machine, "q"); n != 2 {
		t.Errorf("%d ranges", n)
	}
	sameAsRestored(t, other, fsm.Limits{})

	for name, want := range map[string]string{
		"before the head": "the lane goes from", "past the tail": "the lane goes from", "on a record": "where all is gone",
		"touching": "again from", "one more": "places from", "one less": "places from", "empty": "in block",
	} {
		if err := fsm.SpoilGone(m.Machine, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	var tables []byte
	for _, p := range b.Parts {
		if p.Kind == wire.BackupTables {
			tables = append(tables, p.Data...)
		}
	}
	row := []byte{0x94, 1, 0, 0, 0x94, 1, 2, 4, 1} // queue, lane, block, two ranges
	if bytes.Count(tables, row) != 1 {
		t.Fatal("the ranges are not where they were expected")
	}
	for name, with := range map[string][]byte{
		"as it was": row, "of no queue": {0x94, 9, 0, 0, 0x94, 1, 2, 4, 1}, "of no lane": {0x94, 1, 3, 0, 0x94, 1, 2, 4, 1}, "of a lane that cannot be": {0x94, 1, 99, 0, 0x94, 1, 2, 4, 1},
		"of another block": {0x94, 1, 0, 1, 0x94, 1, 2, 4, 1}, "without a length": {0x94, 1, 0, 0, 0x94, 1, 0, 4, 1}, "without an end": {0x94, 1, 0, 0, 0x94, 1, 2, 4, 99},
		"in another order": {0x94, 1, 0, 0, 0x94, 4, 1, 1, 2}, "three numbers": {0x93, 1, 0, 0, 0x94, 1, 2, 4, 1},
	} {
		part := wire.BackupPart{Kind: wire.BackupTables, Data: fsm.Resum(bytes.Replace(tables, row, with, 1))}
		bad := &fsmtest.Backup{Head: b.Head, Parts: []wire.BackupPart{part}}
		for _, p := range b.Parts {
			if p.Kind == wire.BackupBodies {
				bad.Parts = append(bad.Parts, p)
			}
		}
		other := newMachine(t, fsm.Limits{})
		other.apply(newest(), bad.Begin(inc, 5, 0, true))
		other.apply(bad.Chunks(inc, 5)...)
		r := other.apply(bad.End(inc, 5, false)).Results[0]
		if ok := bytes.Equal(with, row); (r.Status == fsm.StatusOK) != ok || !ok && r.Status != fsm.StatusMalformed {
			t.Errorf("ranges %s: status %d, %s", name, r.Status, r.Restore.Text)
		} else {
			t.Logf("ranges %s: %s", name, r.Restore.Text)
		}
	}
}

// TestGone_OlderMachine_WritesTheSnapshotOfThen: until every member can read them there
// are no ranges, so a snapshot of a machine of an older version is what it was.
func TestGone_OlderMachine_WritesTheSnapshotOfThen(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	m := fsm.New(fsm.Config{Group: grp}, storage.NewMemory())
	if err := m.Restore(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if m.Version() >= 4 {
		t.Skip("recorded with a newer version")
	}
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var got bytes.Buffer
	if _, err := snap.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if a, b := beforeBodies(got.Bytes()), beforeBodies(want); !bytes.Equal(a, b) {
		t.Errorf("%d bytes of tables that are not the %d of the golden snapshot", len(a), len(b))
	}
}

// beforeBodies cuts off what stands in a snapshot in no order.
func beforeBodies(snapshot []byte) []byte {
	const kindBodies, kindEnd = 5, 255
	at := len("ONCEQSNP") + 6
	for snapshot[at] != kindBodies && snapshot[at] != kindEnd {
		at += 9 + int(binary.BigEndian.Uint32(snapshot[at+1:]))
	}
	return snapshot[:at]
}

// TestGone_QueueTTL_PassesOverRanges: what expires with its queue is what is there.
func TestGone_QueueTTL_PassesOverRanges(t *testing.T) {
	t.Parallel()
	limits := fsm.Limits{TimerBudget: 3}
	m := newMachine(t, limits)
	own := wire.Message{TTL: time.Second}
	m.apply(newest(), open(1), fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "q", Settings: wire.QueueSettings{TTL: time.Minute}}))
	m.apply(stored(1, "q", wire.Message{}, own, own, wire.Message{}, own, wire.Message{}, wire.Message{}, own, wire.Message{}))
	m.now += 2 * time.Second
	m.entriesUntilDone(m.apply())
	if n := fsm.GoneRanges(m.Machine, "q"); n != 3 {
		t.Fatalf("%d ranges", n)
	}
	m.now += 2 * time.Minute
	m.entriesUntilDone(m.apply())
	if q, _ := m.QueueByName("q"); q.Counts.Expired != 9 || q.Counts.Here() != 0 || fsm.GoneRanges(m.Machine, "q") != 0 {
		t.Errorf("%+v", q.Counts)
	}
	sameAsRestored(t, m, limits)
}

// TestGone_Backup_LeavesOutBodiesOfWhatIsGone: bodies are written after the tables of a
// snapshot, and may be more.
func TestGone_Backup_LeavesOutBodiesOfWhatIsGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(newest(), create("q"), open(1), stored(1, "q", wire.Message{}, wire.Message{TTL: time.Second}))
	m.now += 2 * time.Second
	m.apply()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var stream bytes.Buffer
	if _, err := snap.WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	w := fsm.NewBackupWriter(fsm.Config{Group: grp}, noBackup{})
	if err := w.Read(&stream); err != nil {
		t.Fatal(err)
	}
	if err := w.Body(1, 0, 1, 0, []byte("gone")); err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Error(err)
	}
}

type noBackup struct{}

func (noBackup) Head(fsm.BackupHead) error { return nil }
func (noBackup) Tables([]byte) error       { return nil }
func (noBackup) Bodies([]byte, int) error  { return nil }

// TestBackup_WhileAHeadLagsBehindRecords_CanBeRestored: what is stored then comes behind
// records that the head has yet to pass.
func TestBackup_WhileAHeadLagsBehindRecords_CanBeRestored(t *testing.T) {
	t.Parallel()
	for version, ok := range map[uint32]bool{3: false, fsm.MachineVersion: true} {
		m := newMachine(t, fsm.Limits{PassBudget: 3})
		m.apply(fsmtest.New(fsmtest.Raise{Version: version}), create("q"), open(1))
		ms := []wire.Message{{}}
		for range 10 {
			ms = append(ms, wire.Message{Delay: time.Hour})
		}
		m.apply(stored(1, "q", ms...))
		m.apply(attach(1, 1, "q", 1))
		m.apply(stored(2, "q", wire.Message{}))
		b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: grp})
		if (err == nil) != ok {
			t.Fatalf("version %d: a backup: %v", version, err)
		}
		if !ok {
			continue
		}
		other := newMachine(t, fsm.Limits{})
		other.apply(fsmtest.New(fsmtest.Raise{Version: version}), b.Begin(inc, 5, 0, true))
		other.apply(b.Chunks(inc, 5)...)
		if r := other.apply(b.End(inc, 5, false)).Results[0]; r.Status != fsm.StatusOK {
			t.Errorf("%v: %+v", wire.Status(r.Status), r.Restore)
		}
		sameAsRestored(t, m, fsm.Limits{PassBudget: 3})
		sameAsRestored(t, other, fsm.Limits{})
	}
}
