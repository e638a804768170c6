package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// entriesUntilDone applies empty entries while something is left, and says how many
// entries it took.
func (m *machine) entriesUntilDone(eff *fsm.Effects) (n int) {
	m.t.Helper()
	for n = 1; eff.More; n++ {
		if n > 100_000 {
			m.t.Fatal("it does not end")
		}
		eff = m.apply()
	}
	return n
}

func attachMany(m *machine, queue string, n int) {
	for i := range n {
		m.apply(fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1, byte(i >> 8), byte(i)}, N: 1, Queue: queue, Credit: 1}))
	}
}

// TestWork_PurgeAndDelete_WakeConsumersInSteps: whatever the number of consumers.
func TestWork_PurgeAndDelete_WakeConsumersInSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{TimerBudget: 10})
	m.apply(create("q"))
	attachMany(m, "q", 100)
	if n := m.entriesUntilDone(m.apply(fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: 1, Revision: 1, Nonce: wire.Nonce{1}}))); n < 10 {
		t.Errorf("a purge woke 100 consumers in %d entries of 10 changes", n)
	}
	eff := m.apply(fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 1}))
	if len(eff.Lost) > 10 {
		t.Errorf("one entry took leave of %d consumers, 10 changes are allowed", len(eff.Lost))
	}
	// A replica that is restored meanwhile goes on in the same place.
	again := fsm.New(fsm.Config{Group: grp, Limits: fsm.Limits{TimerBudget: 10}}, storage.NewMemory())
	restore(t, m.Machine, again)
	m.entriesUntilDone(eff)
	for left := true; left; {
		m.index++
		eff, err := again.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0))
		if err != nil {
			t.Fatal(err)
		}
		left = eff.More
	}
	if c := m.Counts().Consumers; c != 0 || again.Digest() != m.Digest() {
		t.Errorf("%d consumers are left, digests %016x and %016x", c, m.Digest(), again.Digest())
	}
}

// TestWork_DeletedQueueWithConsumersLeft_HoldsNothing, also on a replica that was restored
// while there were some: no snapshot has the lanes of a queue that is gone.
func TestWork_DeletedQueueWithConsumersLeft_HoldsNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{TimerBudget: 1})
	m.apply(create("q"), open(1))
	attachMany(m, "q", 3)
	handed := m.apply(stored(1, "q", make([]wire.Message, 3)...)).Deliveries
	if len(handed) != 3 || !m.Holds(&handed[2]) {
		t.Fatalf("handed out: %+v", handed)
	}
	m.apply(fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: 1}))
	again := fsm.New(fsm.Config{Group: grp, Limits: fsm.Limits{TimerBudget: 1}}, storage.NewMemory())
	restore(t, m.Machine, again)
	for _, x := range []*fsm.Machine{m.Machine, again} {
		if x.Counts().Consumers == 0 {
			t.Error("no consumer is left")
		}
		for i := range handed {
			if x.Holds(&handed[i]) {
				t.Errorf("message %d of a deleted queue is held", i)
			}
		}
	}
}

// TestWork_RecordsInFrontOfTheHead_ArePassedInSteps: a message is taken that many with a
// record stand behind, and many that are gone.
func TestWork_RecordsInFrontOfTheHead_ArePassedInSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{PassBudget: 10})
	m.apply(create("q"), open(1))
	const n = 100
	ms := make([]wire.Message, n+2)
	for i := range ms {
		if i > 0 && i <= n {
			ms[i].TTL = time.Duration(1+i%2) * time.Hour
		}
	}
	f := fsmtest.Frame(1, 1, 1, 1, 0, "q")
	f.Publishes[0].Messages = ms
	m.apply(fsmtest.New(f))
	m.now = 90 * time.Minute
	m.apply() // every second is gone, and keeps its record
	eff := m.apply(attach(1, 1, "q", 1))
	if len(eff.Deliveries) != 1 || eff.Deliveries[0].Offset != 0 {
		t.Fatalf("%+v", eff.Deliveries)
	}
	if entries := m.entriesUntilDone(eff); entries < n/10 || entries > n/10+2 {
		t.Errorf("%d records were passed in %d entries of 10", n, entries)
	}
	if c := m.Counts(); c.Leases != 1 || c.Indexed != n/2 {
		t.Errorf("%+v", c)
	}
	if wrong := fsm.WrongSums(m.Machine); wrong != nil {
		t.Error(wrong)
	}
}

// TestWork_OldMessages_AreDroppedInSteps: also between two milestones.
func TestWork_OldMessages_AreDroppedInSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{TimerBudget: 10})
	m.apply(open(1), fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "q", Settings: wire.QueueSettings{TTL: time.Minute}}),
		fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", make([]string, 100)...)))
	m.now = 2 * time.Minute
	eff := m.apply()
	if left := m.Counts().Messages; left != 90 || !eff.More {
		t.Fatalf("%d messages are left after one entry of 10 changes", left)
	}
	m.entriesUntilDone(eff)
	if left := m.Counts().Messages; left != 0 {
		t.Errorf("%d messages are left", left)
	}
}

// TestWork_MuchIsOverdueInOneQueue_OthersHaveTheirTurn: a delayed message of another queue
// is ready soon, whatever there is to do in the first, also while that goes on to be
// published to; and a replica that is restored meanwhile goes on in the same place.
func TestWork_MuchIsOverdueInOneQueue_OthersHaveTheirTurn(t *testing.T) {
	t.Parallel()
	for version, soon := range map[uint32]bool{3: false, fsm.MachineVersion: true} {
		limits := fsm.Limits{TimerBudget: 10}
		m := newMachine(t, limits)
		short := func(name string) fsmtest.Command {
			return fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: name, Settings: wire.QueueSettings{TTL: time.Minute}})
		}
		later := fsmtest.Frame(1, 1, 1, 3, 0, "c", "later")
		later.Publishes[0].Messages[0].Delay = time.Minute + time.Second + 1
		m.apply(fsmtest.New(fsmtest.Raise{Version: version}), open(1), short("a"), short("b"), create("c"),
			fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "a", make([]string, 200)...)), fsmtest.New(fsmtest.Frame(1, 1, 1, 2, 0, "b", make([]string, 200)...)), fsmtest.New(later))
		m.now = 2 * time.Minute
		for i := range 3 {
			m.now += time.Second
			m.apply(fsmtest.New(fsmtest.Frame(1, 1, 1, uint64(4+i), 0, "a", "more")))
			m.agrees(limits)
		}
		if c, _ := m.QueueByName("c"); (c.Counts.Ready == 1) != soon {
			t.Errorf("version %d: after three entries %+v", version, c.Counts)
		}
		if b, _ := m.QueueByName("b"); (b.Counts.Expired > 0) != soon {
			t.Errorf("version %d: after three entries %+v", version, b.Counts)
		}
		eff := m.apply()
		if !eff.More {
			t.Errorf("version %d: all is done", version)
		}
		m.entriesUntilDone(eff)
		if a, _ := m.QueueByName("a"); a.Counts.Expired != 200 {
			t.Errorf("version %d: %+v", version, a.Counts)
		}
	}
}

// TestWork_ManyNumbersAskedForAgainAndAgain_AreRefusedAsBusy: a small request names many
// deliveries. What does not fit into an entry has no effect, and fits into the next.
func TestWork_ManyNumbersAskedForAgainAndAgain_AreRefusedAsBusy(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{AnswerBudget: 100})
	m.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}), create("q"), open(1), attach(1, 1, "q", 60), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", make([]string, 70)...)))
	statuses := func(cs ...fsmtest.Command) string {
		out := ""
		for _, r := range m.apply(cs...).Results {
			out += " " + wire.Status(r.Status).String()
		}
		return out
	}
	if got, want := statuses(ack(1, 1, 50, 1), ack(1, 1, 50, 1), ack(1, 51, 60, 1), ack(1, 1, 1, 61)), " ok ok too much at once too much at once"; got != want {
		t.Errorf("settles: %s, expected %s", got, want)
	}
	if got, want := statuses(ack(1, 51, 60, 61), attach(1, 1, "q", 60), attach(1, 2, "q", 60)), " ok ok ok"; got != want {
		t.Errorf("in the next entry: %s, expected %s", got, want)
	}
	r := fsmtest.New(wire.Receive{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{2}, Queue: "q", First: 1, Done: 1, Limit: 60})
	m.apply(fsmtest.New(fsmtest.Detach{Consumer: fsm.ConsumerID{1}, N: 2}), fsmtest.New(fsmtest.Frame(1, 1, 1, 2, 0, "q", make([]string, 60)...)))
	if got, want := statuses(r, r, r), " ok too much at once ok"; got != want {
		t.Errorf("receives: %s, expected %s", got, want)
	}
}

// TestWork_SmallBudgets_EndInTheSameState: whatever the budgets, replicas agree, with
// one that is restored at any moment, no cap is passed, and what is left is done in the
// entries that follow.
func TestWork_SmallBudgets_EndInTheSameState(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicas(t, caps(t))
		budget := func(label string) int { return rapid.IntRange(1, 4).Draw(t, label) }
		r.limits.TimerBudget, r.limits.AssignmentBudget = budget("timers"), budget("assignments")
		r.limits.PassBudget, r.limits.AnswerBudget = budget("passes"), budget("answers")
		r.unmodelled = true
		r.a, r.b = fsm.New(r.config(), r.bodies), fsm.New(r.config(), storage.NewMemory())
		r.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}))
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			r.step()
		}
		if rapid.Bool().Draw(t, "back to a backup") {
			r.backAndForth()
		}
		for n := 0; r.more; n++ {
			if n == 2000 {
				t.Fatal("what is left is never done")
			}
			r.apply()
		}
		r.a.EndCopy()
	})
}

// backAndForth takes a backup, lets some more happen, puts the backup in its place, and
// goes on with what is from before the restore.
func (r *replicas) backAndForth() {
	b, err := fsmtest.TakeBackup(r.a, r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	b.ID = wire.BackupID{1}
	chunks := b.Chunks(inc, inc+1)
	r.staging = true
	r.apply(b.Begin(inc, inc+1, 0, true))
	for _, c := range chunks {
		r.step()
		r.apply(c)
	}
	r.staging = false
	r.apply(b.End(inc, inc+1, false))
	if r.a.Incarnation() != inc+1 || r.b.Incarnation() != inc+1 {
		r.t.Fatal("the backup was not taken over")
	}
	if err := fsm.Audit(r.a); err != nil {
		r.t.Fatal(err)
	}
	for range 5 {
		r.step()
	}
}

// TestWork_DeepInALongKey_ReleasesInOrder deletes messages in the middle of those that
// wait for a key.
func TestWork_DeepInALongKey_ReleasesInOrder(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	const n = 1000
	ms := make([]wire.Message, n)
	for i := range ms {
		ms[i].OrderingKey = "k"
	}
	f := fsmtest.Frame(1, 1, 1, 1, 0, "q")
	f.Publishes[0].Messages = ms
	m.apply(create("q"), open(1), fsmtest.New(f))
	e := wire.Edit{Incarnation: inc, Group: grp, Number: 1, Verb: wire.EditDelete}
	for i := uint64(n/2 - 100); i < n/2+100; i++ {
		e.Places = append(e.Places, wire.Place{Offset: i})
	}
	m.apply(fsmtest.New(e))
	m.apply(attach(1, 1, "q", 1))
	for number, want := uint64(1), uint64(1); number < n-200; number, want = number+1, want+1 {
		if want == n/2-100 {
			want += 200
		}
		if ds := m.apply(ack(1, number, number, number)).Deliveries; len(ds) != 1 || ds[0].Offset != want {
			t.Fatalf("after delivery %d: %s, expected offset %d", number, fmt.Sprint(ds), want)
		}
	}
}

// TestWork_NewTerm_DetachesInSteps: whatever the number of consumers. Until all are
// detached nobody attaches, is given something, or loses something; a replica that is
// restored meanwhile goes on in the same place.
func TestWork_NewTerm_DetachesInSteps(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{TimerBudget: 10})
	m.apply(create("q"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", make([]string, 34)...)))
	attachMany(m, "q", 35)
	m.now = 30 * time.Second // their leases end with this entry; the last has room for one more
	eff := m.apply(fsmtest.New(fsmtest.Term{Node: "n2"}), attach(1, 2, "q", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 2, 0, "q", "more")))
	if st := eff.Results[1].Status; st != fsm.StatusBusy || len(eff.Deliveries)+len(eff.Lost) != 0 {
		t.Errorf("with most consumers of the former term: attach %s, deliveries %v, lost %v", wire.Status(st), eff.Deliveries, eff.Lost)
	}
	again := fsm.New(fsm.Config{Group: grp, Limits: fsm.Limits{TimerBudget: 10}}, storage.NewMemory())
	restore(t, m.Machine, again)
	entries := 1
	for more := true; more; entries++ {
		eff := m.apply()
		if _, err := again.Apply(m.index, fsmtest.Entry(m.index, fsm.Time(m.now), 0)); err != nil || again.Digest() != m.Digest() {
			t.Fatalf("a restored replica differs after entry %d (%v)", entries, err)
		}
		if len(eff.Deliveries)+len(eff.Lost) != 0 {
			t.Errorf("entry %d: deliveries %v, lost %v", entries, eff.Deliveries, eff.Lost)
		}
		more = eff.More
	}
	if entries != 4 {
		t.Errorf("35 consumers were detached in %d entries of 10", entries)
	}
	if eff := m.apply(attach(100, 1, "q", 1)); eff.Results[0].Status != fsm.StatusOK || len(eff.Deliveries) != 1 {
		t.Errorf("afterwards: %+v", eff)
	}
	if c := m.Counts(); c.Leases != 35 || c.Consumers != 36 {
		t.Errorf("%+v", c)
	}
}

// TestWork_SearchForHolders_CountsAgainstTheEntry: an edit of a leased message goes over
// all leases of its queue.
func TestWork_SearchForHolders_CountsAgainstTheEntry(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{AnswerBudget: 50})
	m.apply(create("q"), open(1), attach(1, 1, "q", 40), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "q", make([]string, 40)...)))
	release := func(offset uint64) fsmtest.Command {
		return fsmtest.New(wire.Edit{Incarnation: inc, Group: grp, Number: 1, Verb: wire.EditRelease, Nonce: wire.Nonce{byte(offset + 1)}, Places: []wire.Place{{Offset: offset, Turn: 1}}})
	}
	eff := m.apply(release(0), release(1))
	if a, b := eff.Results[0], eff.Results[1]; a.Status != fsm.StatusOK || b.Status != fsm.StatusBusy || m.Counts().Leases != 40 {
		t.Errorf("two searches over 40 leases in one entry of 50: %v, %v", wire.Status(a.Status), wire.Status(b.Status))
	}
	if r := m.apply(release(1)).Results[0]; r.Status != fsm.StatusOK || r.Edits[0] != fsm.EditDone {
		t.Errorf("in the next entry: %+v", r)
	}
}

// TestWork_LongBacklog_DoesNotLengthenTheDigest: its milestones are in it by their sum.
func TestWork_LongBacklog_DoesNotLengthenTheDigest(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	short := 0
	for seq := uint64(1); seq <= 1000; seq++ {
		m.now += 2 * time.Second
		m.apply(fsmtest.New(fsmtest.Frame(1, 1, seq, seq, 0, "q", "x")))
		if seq == 10 {
			short = fsm.DigestRowLen(m.Machine, "q")
		}
	}
	if long := fsm.DigestRowLen(m.Machine, "q"); long > short+20 {
		t.Errorf("the digest of a queue takes %d bytes with 10 milestones, %d with 1,000", short, long)
	}
	again := fsm.New(fsm.Config{Group: grp}, storage.NewMemory())
	restore(t, m.Machine, again)
	if again.Digest() != m.Digest() {
		t.Error("a restored replica has another digest")
	}
}
