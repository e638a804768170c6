package fsm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// TestRestore_NothingIsStoredTwice lets a random life go on after its backup was
// taken, restores the backup in a new cluster or over the old one, and then
// sends again everything that was ever sent.
func TestRestore_NothingIsStoredTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicas(t, caps(t))
		r.apply(fsmtest.New(fsmtest.Term{Node: "n1"}))
		steps := rapid.IntRange(1, 40)
		for range steps.Draw(t, "entries before") {
			r.step()
		}
		backup, err := fsmtest.TakeBackup(r.a, fsm.Config{Group: fsmtest.Group})
		if err != nil {
			t.Fatal(err)
		}
		backup.ID[0] = 1
		before := queuesOf(r.a)
		places := map[string]string{}
		for id, place := range r.stored {
			places[id] = place
		}
		for range steps.Draw(t, "entries after") {
			r.step()
		}
		c := &restored{t: t, a: r.a, b: r.b, config: r.config(), bodies: r.bodies, index: r.index, now: r.now, life: fsmtest.Incarnation}
		if rapid.Bool().Draw(t, "new cluster") {
			c.begin()
		}
		c.restore(backup)
		c.sameMessages(before)
		c.late(r.sent, places)
	})
}

// restored is two replicas of a cluster that a backup goes into.
type restored struct {
	t      *rapid.T
	a, b   *fsm.Machine
	config fsm.Config      // of both, and of who takes the place of one
	bodies *storage.Memory // of a
	index  uint64
	now    time.Duration
	life   uint64
}

func (c *restored) begin() {
	c.bodies = storage.NewMemory()
	c.config = fsm.Config{Group: fsmtest.Group}
	c.a, c.b = fsm.New(c.config, c.bodies), fsm.New(c.config, storage.NewMemory())
	c.index, c.life = 0, 0x11fe
	c.now = time.Duration(rapid.IntRange(0, 1000).Draw(c.t, "time of the new cluster")) * time.Second
	// As new as the cluster of the backup, or it would be refused.
	c.apply(fsmtest.New(fsmtest.Term{Node: "n1", Incarnation: c.life}), fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}))
}

func (c *restored) apply(cs ...fsmtest.Command) *fsm.Effects {
	c.index++
	entry := fsmtest.Entry(c.index, fsm.Time(c.now), 0, cs...)
	for _, x := range cs {
		if x.Kind >= fsm.KindOpenSession {
			if err := fsm.Check(x.Kind, x.Payload, fsm.Limits{}); err != nil {
				c.t.Fatalf("%+v: %v", x.Request, err)
			}
		}
	}
	eff, err := c.a.Apply(c.index, entry)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.b.Apply(c.index, entry); err != nil {
		c.t.Fatal(err)
	}
	if a, b := c.a.Digest(), c.b.Digest(); a != b {
		c.t.Fatalf("digests differ at %d: %v", c.index, append(fsm.DifferentRows(c.a, c.b), append(fsm.StaleRows(c.a), fsm.StaleRows(c.b)...)...))
	}
	return eff
}

// restore brings the backup in, with repeats, with another attempt that is left
// unfinished, and with replicas that are replaced by their snapshots in between.
func (c *restored) restore(b *fsmtest.Backup) {
	const left, next = 0x1ef7, 0x2
	before := queuesOf(c.a)
	c.apply(b.Begin(c.life, left, 0, true))
	c.apply(b.Chunks(c.life, left)[:rapid.IntRange(0, len(b.Parts)).Draw(c.t, "chunks that were left")]...)
	commands := append([]fsmtest.Command{b.Begin(c.life, next, left, true)}, b.Chunks(c.life, next)...)
	for i, x := range commands {
		c.apply(x)
		if rapid.IntRange(0, 3).Draw(c.t, "again") == 0 {
			c.apply(commands[rapid.IntRange(0, i).Draw(c.t, "which")])
		}
		if rapid.IntRange(0, 3).Draw(c.t, "snapshot") == 0 {
			bodies := storage.NewMemory()
			fresh := fsm.New(c.config, bodies)
			restore(c.t, c.a, fresh)
			c.a, c.bodies = fresh, bodies
		}
		if now := queuesOf(c.a); now != before {
			c.t.Fatalf("the restore shows before its end:\n%s\nwas\n%s", now, before)
		}
	}
	eff := c.apply(b.End(c.life, next, false))
	if r := eff.Results[0]; r.Status != fsm.StatusOK || !eff.Restored || c.a.Incarnation() != next {
		c.t.Fatalf("restore: %v %+v", r.Status, r.Restore)
	}
	if r := c.apply(b.End(c.life, next, false)).Results[0]; r.Status != fsm.StatusOK {
		c.t.Fatalf("a repeat: %v", r.Status)
	}
	if err := fsm.Audit(c.a); err != nil {
		c.t.Fatal(err)
	}
	if n := c.a.Counts(); n.Messages != uint64(c.bodies.Len()) || n.Consumers != 0 || n.Leases != 0 {
		c.t.Fatalf("%+v, and %d bodies", n, c.bodies.Len())
	}
}

// sameMessages compares with the machine that the backup was taken of. What was
// due there at that very moment may have gone.
func (c *restored) sameMessages(before string) {
	now := queuesOf(c.a)
	if strings.Contains(before, "ttl") { // see queuesOf
		return
	}
	if now != before {
		c.t.Fatalf("restored\n%s\nwas\n%s", now, before)
	}
}

// late sends everything once more.
func (c *restored) late(sent []fsmtest.Command, places map[string]string) {
	before := c.a.Counts()
	for _, x := range sent {
		if x.Kind < fsm.KindOpenSession {
			continue
		}
		eff := c.apply(x)
		r := eff.Results[0]
		f, isPublish := x.Request.(wire.PublishFrame)
		if !isPublish {
			continue
		}
		for _, p := range r.Publish {
			id := fmt.Sprintf("s%d.%d", f.Session, p.Sequence)
			place := fmt.Sprintf("%d/%d.%d", p.Queue, p.Lane, p.Offset)
			if p.Status == fsm.StatusOK && (!p.Duplicate || places[id] != place) {
				c.t.Fatalf("%s is answered with %s (duplicate %v), the backup has it at %q", id, place, p.Duplicate, places[id])
			}
		}
	}
	after := c.a.Counts()
	if after.Messages > before.Messages || after.Queues != before.Queues || after.Sessions > before.Sessions || after.Consumers != 0 {
		c.t.Fatalf("late copies made %+v of %+v", after, before)
	}
	for _, q := range c.a.Queues() {
		if q.Counts.Stored != q.Counts.Sum() {
			c.t.Fatalf("queue %s: stored %d, states add up to %d", q.Name, q.Counts.Stored, q.Counts.Sum())
		}
	}
}

// queuesOf tells what queues hold, and what of it is not as it was when leases
// are returned. A time to live is told, since what is too old goes with the next
// entry.
func queuesOf(m *fsm.Machine) string {
	var b strings.Builder
	for _, q := range m.Queues() {
		n := q.Counts
		fmt.Fprintf(&b, "%s: %d here, %d delayed, %d parked; stored %d acked %d dead-lettered %d bytes %d\n",
			q.Name, n.Here(), n.Delayed, n.Parked, n.Stored, n.Acked, n.DeadLettered, q.Bytes)
		if n.Expired > 0 || q.Settings.TTL > 0 {
			b.WriteString("ttl\n")
		}
		for _, state := range []fsm.MessageState{fsm.MessageDelayed, fsm.MessageReady, fsm.MessageBlocked, fsm.MessageParked, fsm.MessageLeased} {
			is, _ := m.Peek(q.Name, state, fsm.MessageInfo{}, fsm.PeekMax)
			for _, i := range is {
				if i.Expires != 0 {
					b.WriteString("ttl\n")
				}
				if state == fsm.MessageDelayed {
					fmt.Fprintf(&b, "  %s/%d.%d due %v\n", q.Name, i.Lane, i.Offset, i.Due)
				}
			}
		}
	}
	return b.String()
}

// TestRestore_Refusals are backups that cannot be: each is refused in its end,
// the same on every replica, and nothing has changed.
func TestRestore_Refusals(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("orders"), open(1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "orders", "a", "b", "c")))
	good, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		t.Fatal(err)
	}
	other := newMachine(t, fsm.Limits{})
	other.apply(create("orders"))
	empty, err := fsmtest.TakeBackup(other.Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*fsmtest.Backup){
		"no tables":               func(b *fsmtest.Backup) { b.Parts = b.Parts[1:] },
		"tables in another order": func(b *fsmtest.Backup) { b.Parts[0], b.Parts[1] = b.Parts[1], b.Parts[0] },
		"no bodies":               func(b *fsmtest.Backup) { b.Parts = b.Parts[:len(b.Parts)-1] },
		"bodies twice":            func(b *fsmtest.Backup) { b.Parts = append(b.Parts, b.Parts[len(b.Parts)-1]) },
		"bodies of nobody": func(b *fsmtest.Backup) {
			b.Parts = append(empty.Parts[:len(empty.Parts):len(empty.Parts)], b.Parts[len(b.Parts)-1])
		},
		"another incarnation":        func(b *fsmtest.Backup) { b.Head.Incarnation++ },
		"fewer queues than it names": func(b *fsmtest.Backup) { b.Head.QueueMax = 0 },
		"a queue without a number":   func(b *fsmtest.Backup) { *b = *renumbered(empty, "orders", 0) },
		"a queue above its numbers":  func(b *fsmtest.Backup) { *b = *renumbered(empty, "orders", 7) },
		"a flipped bit":              func(b *fsmtest.Backup) { b.Parts[0].Data = flipped(b.Parts[0].Data) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := &fsmtest.Backup{Head: good.Head, Parts: append([]wire.BackupPart(nil), good.Parts...)}
			change(bad)
			m := newMachine(t, fsm.Limits{})
			m.apply(create("here"), bad.Begin(fsmtest.Incarnation, 5, 0, true))
			m.apply(bad.Chunks(fsmtest.Incarnation, 5)...)
			r := m.apply(bad.End(fsmtest.Incarnation, 5, false)).Results[0]
			if r.Status != fsm.StatusMalformed || r.Restore.Text == "" {
				t.Errorf("end: %v %+v", r.Status, r.Restore)
			}
			if _, ok := m.QueueByName("here"); !ok || m.Incarnation() != fsmtest.Incarnation {
				t.Error("the cluster has changed")
			}
		})
	}
}

// TestRestore_DoubtfulTables_AreRefused: in all of them something would stand still, or
// stop every node, when its turn comes. Builds before took them, and do as long as they
// are there.
func TestRestore_DoubtfulTables_AreRefused(t *testing.T) {
	t.Parallel()
	spoils := map[string]func(*fsm.Machine, []byte) []byte{
		"nothing":         nil,
		"a session twice": func(_ *fsm.Machine, tables []byte) []byte { return fsm.FirstTwice(tables, fsm.SectionSessions) },
		"a queue twice":   func(_ *fsm.Machine, tables []byte) []byte { return fsm.FirstTwice(tables, fsm.SectionQueues) },
		"a message twice": func(_ *fsm.Machine, tables []byte) []byte { return fsm.FirstTwice(tables, fsm.SectionMessages) },
	}
	for name := range fsm.Doubts {
		spoils[name] = func(m *fsm.Machine, _ []byte) []byte {
			fsm.Doubt(m, name)
			return tablesOf(t, m)
		}
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := everyState(t)
			b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
			if err != nil {
				t.Fatal(err)
			}
			tables := tablesOf(t, m.Machine)
			if spoil != nil {
				tables = spoil(m.Machine, tables)
			}
			parts := []wire.BackupPart{{Kind: wire.BackupTables, Data: tables}}
			for _, p := range b.Parts {
				if p.Kind == wire.BackupBodies {
					parts = append(parts, p)
				}
			}
			b.Parts = parts
			for version, want := range map[uint32]fsm.Status{3: fsm.StatusOK, 4: fsm.StatusMalformed} {
				if spoil == nil {
					want = fsm.StatusOK
				}
				m := newMachine(t, fsm.Limits{})
				m.apply(fsmtest.New(fsmtest.Raise{Version: version}), b.Begin(fsmtest.Incarnation, 5, 0, true))
				m.apply(b.Chunks(fsmtest.Incarnation, 5)...)
				again := fsm.New(fsm.Config{Group: fsmtest.Group}, storage.NewMemory())
				restore(t, m.Machine, again) // it was not there when the tables came
				for _, m := range []*machine{m, {Machine: again, t: t, index: m.index}} {
					r := m.apply(b.End(fsmtest.Incarnation, 5, false)).Results[0]
					if r.Status != want || (r.Restore.Text == "") != (want == fsm.StatusOK) {
						t.Errorf("version %d: %s, %q", version, wire.Status(r.Status), r.Restore.Text)
					}
					if want != fsm.StatusOK && m.Incarnation() != fsmtest.Incarnation {
						t.Errorf("version %d: the cluster has changed", version)
					}
				}
			}
		})
	}
}

// TestRestore_AQueueThatOversleeps_IsRefused: its messages would be late, by years.
func TestRestore_AQueueThatOversleeps_IsRefused(t *testing.T) {
	t.Parallel()
	for _, by := range []fsm.Time{0, 1, fsm.Time(36 * 365 * 24 * time.Hour)} {
		m := newMachine(t, fsm.Limits{})
		later := fsmtest.Frame(1, 1, 1, 1, 0, "orders", "later")
		later.Publishes[0].Messages[0].Delay = time.Hour
		m.apply(create("orders"), open(1), fsmtest.New(later))
		fsm.Oversleep(m.Machine, by)
		b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
		if (err == nil) != (by == 0) {
			t.Errorf("by %d: verify: %v", by, err)
		}
		other := newMachine(t, fsm.Limits{})
		other.apply(newest(), b.Begin(fsmtest.Incarnation, 5, 0, true))
		other.apply(b.Chunks(fsmtest.Incarnation, 5)...)
		r := other.apply(b.End(fsmtest.Incarnation, 5, false)).Results[0]
		if (r.Status == fsm.StatusOK) != (by == 0) {
			t.Errorf("by %d: %v %q", by, r.Status, r.Restore.Text)
		}
	}
}

// TestRestore_WhatIsOverdue_IsNoReasonToRefuse: a message that is held beyond its time to
// live, and more delays that end at once than an entry has room for.
func TestRestore_WhatIsOverdue_IsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	for name, overdue := range map[string]func(m *machine){
		"held beyond its time": func(m *machine) {
			m.apply(fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: "orders", Settings: wire.QueueSettings{LeaseTime: time.Hour, TTL: 10 * time.Second}}))
			m.apply(open(1), attach(1, 1, "orders", 1), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "orders", "a")))
			m.now += 30 * time.Second
			m.apply()
		},
		"more than an entry does": func(m *machine) {
			later := fsmtest.Frame(1, 1, 1, 1, 0, "orders", make([]string, 40)...)
			for i := range later.Publishes[0].Messages {
				later.Publishes[0].Messages[i].Delay = time.Minute - time.Duration(i)*time.Millisecond
			}
			m.apply(create("orders"), open(1), fsmtest.New(later))
			m.now += 2 * time.Minute
			if !m.apply().More {
				m.t.Fatal("one entry has done it all")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, fsm.Limits{TimerBudget: 10})
			m.apply(newest())
			overdue(m)
			b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
			if err != nil {
				t.Fatal(err)
			}
			other := newMachine(t, fsm.Limits{})
			other.apply(newest(), b.Begin(fsmtest.Incarnation, 5, 0, true))
			other.apply(b.Chunks(fsmtest.Incarnation, 5)...)
			if r := other.apply(b.End(fsmtest.Incarnation, 5, false)).Results[0]; r.Status != fsm.StatusOK {
				t.Errorf("%v %q", r.Status, r.Restore.Text)
			}
		})
	}
}

// TestRestore_PartsOfTheTablesWithoutAnything_AreRefused: they would count nothing, and
// each takes room in all snapshots.
func TestRestore_PartsOfTheTablesWithoutAnything_AreRefused(t *testing.T) {
	t.Parallel()
	b, err := fsmtest.TakeBackup(everyState(t).Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		t.Fatal(err)
	}
	b.Parts = append([]wire.BackupPart{{Kind: wire.BackupTables}}, b.Parts...)
	for version, want := range map[uint32]fsm.Status{3: fsm.StatusOK, 4: fsm.StatusMalformed} {
		m := newMachine(t, fsm.Limits{})
		m.apply(fsmtest.New(fsmtest.Raise{Version: version}), b.Begin(fsmtest.Incarnation, 5, 0, true))
		if r := m.apply(b.Chunks(fsmtest.Incarnation, 5)[0]).Results[0]; r.Status != want {
			t.Errorf("version %d: %v %q", version, r.Status, r.Restore.Text)
		}
	}
}

// TestRestore_ABodyElsewhere_IsRefused: with it as many bodies come as there are
// messages, and one of these would have none when its turn comes.
func TestRestore_ABodyElsewhere_IsRefused(t *testing.T) {
	t.Parallel()
	good, err := fsmtest.TakeBackup(everyState(t).Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		t.Fatal(err)
	}
	last := len(good.Parts) - 1
	bodies := good.Parts[last]
	if bodies.Kind != wire.BackupBodies || bodies.Bodies < 8 {
		t.Fatalf("the last part is %d, with %d bodies", bodies.Kind, bodies.Bodies)
	}
	for name, c := range map[string]struct {
		place []uint64 // queue, lane, offset
		want  string
	}{
		"as they were":        {nil, ""},
		"behind the tail":     {[]uint64{2, 0, 8}, "lane 0 offset 8 of queue 2"},
		"of what is gone":     {[]uint64{2, 0, 3}, "lane 0 offset 3 of queue 2"},
		"in a lane of nobody": {[]uint64{2, 1, 0}, "lane 1 offset 0 of queue 2"},
		"in another queue":    {[]uint64{1, 0, 0}, "lane 0 offset 0 of queue 1"},
		"in no queue of it":   {[]uint64{3, 0, 0}, "lane 0 offset 0 of queue 3"},
		"where another is":    {[]uint64{2, 0, 1}, "of queue 2 behind one at offset 1"},
		"ahead of the tables": {nil, "no tables before"},
		"amid the tables":     {nil, "tables that were cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := &fsmtest.Backup{Head: good.Head}
			moved := bodies
			if c.place != nil {
				moved.Data = firstBodyAt(t, bodies.Data, c.place[0], c.place[1], c.place[2])
			}
			var tables []byte
			for _, p := range good.Parts[:last] {
				tables = append(tables, p.Data...)
			}
			first, rest := tables, tables[len(tables):]
			switch {
			case strings.HasPrefix(name, "ahead"):
				first, rest = nil, tables
			case strings.HasPrefix(name, "amid"):
				first, rest = tables[:len(tables)/2], tables[len(tables)/2:]
			}
			for _, p := range []wire.BackupPart{{Kind: wire.BackupTables, Data: first}, moved, {Kind: wire.BackupTables, Data: rest}} {
				if len(p.Data) > 0 {
					bad.Parts = append(bad.Parts, p)
				}
			}
			if err := bad.Verify(fsm.Config{Group: fsmtest.Group}); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("verify: %v", err)
			}
			for _, version := range []uint32{3, 4} {
				m := newMachine(t, fsm.Limits{})
				m.apply(fsmtest.New(fsmtest.Raise{Version: version}), bad.Begin(fsmtest.Incarnation, 5, 0, true))
				var refused *fsm.Result
				for _, chunk := range bad.Chunks(fsmtest.Incarnation, 5) {
					if r := m.apply(chunk).Results[0]; r.Status != fsm.StatusOK {
						refused = &r
						break
					}
				}
				switch {
				case version < 4 || c.want == "":
					if refused != nil {
						t.Errorf("version %d: %v %q", version, refused.Status, refused.Restore.Text)
					}
				case refused == nil || refused.Status != fsm.StatusMalformed || !strings.Contains(refused.Restore.Text, c.want):
					t.Errorf("refused with %+v, want %q", refused, c.want)
				default:
					if r := m.apply(bad.End(fsmtest.Incarnation, 5, true)).Results[0]; r.Status != fsm.StatusOK || m.Incarnation() != fsmtest.Incarnation {
						t.Errorf("given up: %v, incarnation %d", r.Status, m.Incarnation())
					}
				}
			}
		})
	}
}

// firstBodyAt gives the first of some bodies another place.
func firstBodyAt(t *testing.T, bodies []byte, queue, lane, offset uint64) []byte {
	t.Helper()
	n := 4 + int(binary.BigEndian.Uint32(bodies))
	r := pack.NewReader(bodies[4:n])
	r.ArrayExact(5)
	for range 3 {
		r.Uint()
	}
	at, message := r.Int(), r.Bin(len(bodies))
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	w := pack.NewWriter(nil)
	w.Array(5)
	w.Uint(queue)
	w.Uint(lane)
	w.Uint(offset)
	w.Int(at)
	w.Bin(message)
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(w.Len())), w.Bytes()...), bodies[n:]...)
}

// everyState is a machine with a message in each state in queue 2, a queue that is
// empty, and sessions with and without a name.
func everyState(t *testing.T) *machine {
	m := newMachine(t, fsm.Limits{})
	keyed, delayed := fsmtest.Frame(1, 1, 1, 2, 0, "orders", "k1", "k2", "k3"), fsmtest.Frame(1, 1, 1, 3, 0, "orders", "later")
	for i := range keyed.Publishes[0].Messages {
		keyed.Publishes[0].Messages[i].OrderingKey = "k"
	}
	delayed.Publishes[0].Messages[0].Delay, delayed.Publishes[0].Messages[0].Priority = time.Hour, 3
	named := wire.OpenSession{Incarnation: inc, Group: grp, Nonce: wire.Nonce{2}, Named: true, Name: "svc"}
	m.apply(fsmtest.New(fsmtest.Raise{Version: 3}), create("empty"), create("orders"), open(1), fsmtest.New(named), attach(1, 1, "orders", 1),
		fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "orders", "rejected", "leased", "ready", "deleted", "ready")), fsmtest.New(keyed), fsmtest.New(delayed))
	reject := wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1}, Items: []wire.SettleItem{{From: 1, To: 1, Verb: wire.VerbReject}}}
	gone := wire.Edit{Incarnation: inc, Group: grp, Number: 2, Verb: wire.EditDelete, Places: []wire.Place{{Offset: 3}}}
	m.apply(fsmtest.New(gone), fsmtest.New(reject))
	return m
}

// tablesOf is a machine's snapshot, whose bodies a restore passes over.
func tablesOf(t *testing.T, m *fsm.Machine) []byte {
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestRestore_MoreTablesThanTheLimit_AreRefused: what has come until then stays, and
// may be aborted.
func TestRestore_MoreTablesThanTheLimit_AreRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("orders"))
	b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, p := range b.Parts {
		most += len(p.Data)
	}
	for _, c := range []struct {
		limit int
		want  fsm.Status
	}{{most, fsm.StatusOK}, {most - 1, fsm.StatusTooLarge}} {
		m := newMachine(t, fsm.Limits{RestoreTablesMax: int64(c.limit)})
		m.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}), b.Begin(fsmtest.Incarnation, 5, 0, true))
		rs := m.apply(b.Chunks(fsmtest.Incarnation, 5)...).Results
		if got := rs[len(rs)-1].Status; got != c.want {
			t.Errorf("limit %d for tables of %d: status %d, want %d", c.limit, most, got, c.want)
		}
		if r := m.apply(b.End(fsmtest.Incarnation, 5, true)).Results[0]; r.Status != fsm.StatusOK {
			t.Errorf("abort: %d", r.Status)
		}
	}
}

// TestAudit_ManyRecordsAreWrong_TellsOfTheFirst: the text of a refusal is an answer
// that every replica gives, so it must not hang on the order of a map.
func TestAudit_ManyRecordsAreWrong_TellsOfTheFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	f := fsmtest.Frame(1, 1, 1, 1, 0, "orders", "a", "b", "c", "d", "e", "f", "g", "h")
	for i := range f.Publishes[0].Messages {
		f.Publishes[0].Messages[i].Delay = time.Hour
	}
	p := &f.Publishes[0]
	p.Checksum = wire.PublishChecksum(f.Queue, p.Messages)
	m.apply(create("orders"), open(1), fsmtest.New(f))
	fsm.Spoil(m.Machine)
	err := fsm.Audit(m.Machine)
	if err == nil || !strings.Contains(err.Error(), "offset 0 ") {
		t.Errorf("%v", err)
	}
}

// renumbered is a backup in which a queue that was number 1 has another number, with
// the checksums that belong to it.
func renumbered(b *fsmtest.Backup, queue string, number byte) *fsmtest.Backup {
	var tables []byte
	for _, p := range b.Parts {
		tables = fsm.TablesOf(tables, p.Data)
	}
	row := append([]byte{1, 0xa0 | byte(len(queue))}, queue...)
	tables[bytes.Index(tables, row)] = number
	return &fsmtest.Backup{Head: b.Head, Parts: []wire.BackupPart{{Kind: wire.BackupTables, Data: fsm.Resum(tables)}}}
}

func flipped(b []byte) []byte {
	b = append([]byte(nil), b...)
	b[len(b)/2] ^= 4
	return b
}

// FuzzRestoreEnd: whatever tables a restore brings, with the checksums that a
// careful liar would give them, the end is a refusal or a machine whose tables
// agree and that goes on working.
func FuzzRestoreEnd(f *testing.F) {
	m := newMachine(f, fsm.Limits{})
	m.apply(create("orders"), open(1), attach(1, 1, "orders", 2), fsmtest.New(fsmtest.Frame(1, 1, 1, 1, 0, "orders", "a", "b", "c")))
	m.apply(ack(1, 1, 1, 1))
	b, err := fsmtest.TakeBackup(m.Machine, fsm.Config{Group: fsmtest.Group})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 30, 1, 0, 90, 255})
	f.Add([]byte{1, 20, 7})
	f.Fuzz(func(t *testing.T, changes []byte) {
		bad := &fsmtest.Backup{Head: b.Head, Parts: append([]wire.BackupPart(nil), b.Parts...)}
		tables := fsm.TablesOf(bad.Parts[0].Data, bad.Parts[1].Data)
		for ; len(changes) >= 3; changes = changes[3:] {
			tables[(int(changes[0])<<8|int(changes[1]))%len(tables)] = changes[2]
		}
		bad.Parts = append([]wire.BackupPart{{Kind: wire.BackupTables, Data: fsm.Resum(tables)}}, bad.Parts[2:]...)
		m := newMachine(t, fsm.Limits{})
		m.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}), bad.Begin(fsmtest.Incarnation, 5, 0, true))
		m.apply(bad.Chunks(fsmtest.Incarnation, 5)...)
		if m.apply(bad.End(fsmtest.Incarnation, 5, false)).Results[0].Status != fsm.StatusOK {
			return
		}
		m.now += time.Hour
		x := fsmtest.New(wire.Attach{Incarnation: 5, Group: fsmtest.Group, Consumer: wire.ConsumerID{9}, N: 1, Queue: "orders", Credit: 100})
		m.apply(x)
		m.now += 100 * time.Hour
		m.apply()
		m.Digest()
	})
}
