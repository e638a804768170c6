package fsm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// TestRestore_NothingIsStoredTwice lets a random life go on after its backup was
// taken, restores the backup in a new cluster or over the old one, and then
// sends again everything that was ever sent.
func TestRestore_NothingIsStoredTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicas(t)
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
		m.apply(bad.Begin(fsmtest.Incarnation, 5, 0, true))
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
