package fsm_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// TestScripts runs testdata/*.txt, which read as the manual of the machine's
// features. Each `entry at=TIME` is one log entry of the commands below it;
// `state` prints the tables; `restore` goes on with a machine that was restored
// from a snapshot and must have the same digest.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		s := newScript(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.run(d)
		})
	})
}

type script struct {
	t      *testing.T
	m      *fsm.Machine
	limits fsm.Limits
	bodies *storage.Memory
	index  uint64
	now    fsm.Time
	queues map[uint64]string
	// pulling: entries tell which queues have what receives may wait for.
	pulling bool
	// backups by name; a cluster that begins anew keeps them.
	backups map[string]*fsmtest.Backup
}

func newScript(t *testing.T) *script {
	s := &script{t: t, queues: map[uint64]string{}, backups: map[string]*fsmtest.Backup{}}
	s.m, s.bodies = s.fresh()
	return s
}

func (s *script) fresh() (*fsm.Machine, *storage.Memory) {
	b := storage.NewMemory()
	return fsm.New(fsm.Config{Group: fsmtest.Group, Limits: s.limits}, b), b
}

func (s *script) run(d *datadriven.TestData) string {
	switch d.Cmd {
	case "limits":
		s.limits = fsm.Limits{}
		for _, a := range d.CmdArgs {
			n, err := strconv.Atoi(a.Vals[0])
			if err != nil {
				d.Fatalf(s.t, "%v", err)
			}
			switch a.Key {
			case "sessions":
				s.limits.SessionsMax = n
			case "outcomes":
				s.limits.OutcomesMax = n
			case "seals":
				s.limits.SealsMax = n
			case "session-bytes":
				s.limits.SessionBytesMax = int64(n)
			case "leases":
				s.limits.LeasesMax = n
			case "returns":
				s.limits.ReturnsMax = n
			case "consumers":
				s.limits.ConsumersMax = n
			case "queues":
				s.limits.QueuesMax = n
			case "timers":
				s.limits.TimerBudget = n
			case "assignments":
				s.limits.AssignmentBudget = n
			case "indexed":
				s.limits.IndexedMax = n
			default:
				d.Fatalf(s.t, "unknown limit %s", a.Key)
			}
		}
		s.m, s.bodies = s.fresh()
		return ""
	case "entry":
		return s.entry(d)
	case "pulling":
		s.pulling = true
		return ""
	case "state":
		return s.state()
	case "restore":
		return s.restore()
	case "backup":
		return s.backup(d)
	case "new-cluster":
		s.m, s.bodies = s.fresh()
		s.index, s.now = 0, 0
		return ""
	case "peek":
		return s.peek(d)
	case "message":
		var queue string
		var offset, lane uint64
		d.ScanArgs(s.t, "queue", &queue)
		d.ScanArgs(s.t, "offset", &offset)
		d.MaybeScanArgs(s.t, "lane", &lane)
		i, ok := s.messageAt(queue, uint8(lane), offset)
		if !ok {
			return "not here\n"
		}
		return s.message(queue, i)
	case "outcome":
		var session, seq, life uint64 = 0, 0, fsmtest.Incarnation
		d.MaybeScanArgs(s.t, "life", &life)
		d.ScanArgs(s.t, "s", &session)
		d.ScanArgs(s.t, "seq", &seq)
		r, epoch := s.m.Outcome(life, session, seq)
		return fmt.Sprintf("%s (epoch %d)\n", s.publishResult(r), epoch)
	}
	d.Fatalf(s.t, "unknown directive %q", d.Cmd)
	return ""
}

func (s *script) entry(d *datadriven.TestData) string {
	if d.HasArg("at") {
		var at string
		d.ScanArgs(s.t, "at", &at)
		s.now = fsm.Time(duration(s.t, at))
	}
	var cs []fsmtest.Command
	for line := range strings.Lines(d.Input) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			if strings.HasPrefix(line, "restore-") {
				cs = append(cs, s.restoring(line)...)
				continue
			}
			cs = append(cs, parseCommand(s.t, line))
		}
	}
	return s.applyAll(cs)
}

// apply applies one entry of commands.
func (s *script) apply(lines []string) string {
	var cs []fsmtest.Command
	for _, line := range lines {
		cs = append(cs, parseCommand(s.t, line))
	}
	return s.applyAll(cs)
}

// applyAll applies one entry and tells what it did.
func (s *script) applyAll(cs []fsmtest.Command) string {
	for _, c := range cs {
		if c.Kind < fsm.KindOpenSession {
			continue
		}
		if err := fsm.Check(c.Kind, c.Payload, s.limits); err != nil {
			return fmt.Sprintf("check: %v\n", err)
		}
	}
	s.index++
	eff, err := s.m.Apply(s.index, fsmtest.Entry(s.index, s.now, 0, cs...))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, q := range s.m.Queues() {
		s.queues[q.Number] = q.Name
		if q.Counts.Stored != q.Counts.Sum() {
			s.t.Fatalf("queue %s: stored %d, states add up to %d", q.Name, q.Counts.Stored, q.Counts.Sum())
		}
	}
	var b strings.Builder
	for _, r := range eff.Results {
		b.WriteString(s.result(r))
	}
	for _, dl := range eff.Deliveries {
		fmt.Fprintf(&b, "-> %s/%d #%d %s attempt %d until %v%s\n", name(dl.Consumer), dl.N, dl.Number, s.place(dl.Queue, dl.Lane, dl.Offset), dl.Attempt, time.Duration(dl.Deadline), map[bool]string{true: " restored"}[dl.Restored])
		if dd := dl.Dead; dd != nil {
			fmt.Fprintf(&b, "   dead letter of %s after %d attempts: %s; first error %q, last %q\n", place(dd.OriginQueue, dd.OriginLane, dd.OriginOffset), dd.OriginAttempts, dd.Reason, dd.FirstError, dd.LastError)
		}
	}
	for _, l := range eff.Lost {
		if l.Gone {
			fmt.Fprintf(&b, "gone: %s/%d\n", name(l.Consumer), l.N)
			continue
		}
		fmt.Fprintf(&b, "lost: %s/%d %s\n", name(l.Consumer), l.N, states(l.Lost))
	}
	for _, q := range eff.Ready {
		if s.pulling {
			fmt.Fprintf(&b, "ready: %s, %d\n", q.Name, q.Messages)
		}
	}
	if eff.More {
		b.WriteString("more is due\n")
	}
	return b.String()
}

func (s *script) place(queue uint64, lane uint8, offset uint64) string {
	return place(s.queues[queue], lane, offset)
}

func place(queue string, lane uint8, offset uint64) string {
	return wire.FormatMessageID(queue, lane, offset)
}

// peek lists messages in a state: peek queue=orders state=ready [limit=2].
func (s *script) peek(d *datadriven.TestData) string {
	var queue, state string
	limit := 100
	d.ScanArgs(s.t, "queue", &queue)
	d.ScanArgs(s.t, "state", &state)
	d.MaybeScanArgs(s.t, "limit", &limit)
	var b strings.Builder
	is, ok := s.m.Peek(queue, messageStates[state], fsm.MessageInfo{}, limit)
	if !ok {
		return "no queue\n"
	}
	for _, i := range is {
		b.WriteString(s.message(queue, i))
	}
	return b.String()
}

func (s *script) messageAt(queue string, lane uint8, offset uint64) (i fsm.MessageInfo, ok bool) {
	l, ok := s.m.LookAt(queue, lane, offset)
	if !ok {
		return i, false
	}
	for !s.m.LookOn(l) {
	}
	if len(l.Found()) == 0 {
		return i, false
	}
	return l.Found()[0], true
}

var messageStates = map[string]fsm.MessageState{
	"ready": fsm.MessageReady, "blocked": fsm.MessageBlocked, "delayed": fsm.MessageDelayed,
	"leased": fsm.MessageLeased, "parked": fsm.MessageParked,
}

func (s *script) message(queue string, i fsm.MessageInfo) string {
	out := place(queue, i.Lane, i.Offset)
	for n, st := range messageStates {
		if st == i.State {
			out += " " + n
		}
	}
	out += fmt.Sprintf(" attempts %d failures %d age %v", i.Attempts, i.Failures, i.Age)
	note := func(name string, v any, show bool) {
		if show {
			out += fmt.Sprintf(" %s %v", name, v)
		}
	}
	note("due in", i.Due, i.Due != 0)
	note("expires in", i.Expires, i.Expires != 0)
	note("key", i.Key, i.Key != "")
	note("held by", name(i.Consumer), i.State == fsm.MessageLeased)
	note("for", i.Deadline, i.State == fsm.MessageLeased)
	note("reason:", i.Reason, i.Reason != "")
	note("from", place(i.OriginQueue, i.OriginLane, i.OriginOffset), i.OriginQueue != "")
	out += "\n"
	for _, e := range i.Events {
		out += fmt.Sprintf("  %v ago: %s attempt %d %s\n", e.Ago, eventKinds[e.Kind], e.Attempt, e.Text)
	}
	return out
}

var eventKinds = map[fsm.EventKind]string{
	fsm.EventExpired: "lease ran out", fsm.EventNacked: "nacked", fsm.EventGone: "consumer gone", fsm.EventLeft: "consumer left",
	fsm.EventRejected: "rejected", fsm.EventLeased: "leased", fsm.EventDead: "dead letter", fsm.EventParked: "parked",
	fsm.EventRequeued: "requeued", fsm.EventReleased: "released",
}

func (s *script) publishResult(r fsm.PublishResult) string {
	out := fmt.Sprintf("%d %s", r.Sequence, status(r.Status))
	if r.Status == fsm.StatusOK {
		outputs := r.Outputs
		if outputs == nil {
			outputs = []fsm.Position{{Queue: r.Queue, Lane: r.Lane, Offset: r.Offset, Count: r.Count}}
		}
		for _, o := range outputs {
			out += " " + s.place(o.Queue, o.Lane, o.Offset)
			if o.Count > 1 {
				out += fmt.Sprintf("..%d", o.Offset+uint64(o.Count)-1)
			}
		}
		if r.Duplicate {
			out += " duplicate"
		}
	}
	return out
}

func (s *script) result(r fsm.Result) string {
	out := kinds[r.Kind] + ": "
	switch r.Kind {
	case fsm.KindPublish, fsm.KindSeal, fsm.KindAckPublish:
		var rs []string
		for _, p := range r.Publish {
			rs = append(rs, s.publishResult(p))
		}
		if rs == nil {
			return out + status(r.Status) + "\n"
		}
		return out + strings.Join(rs, ", ") + "\n"
	case fsm.KindOpenSession:
		out += status(r.Status)
		if r.Session.Number != 0 {
			out += fmt.Sprintf(" s%d epoch %d", r.Session.Number, r.Session.Epoch)
		}
		if r.Status == fsm.StatusOK {
			out += fmt.Sprintf(" floor %d next %d", r.Session.Floor, r.Session.Next)
		}
	case fsm.KindAttach:
		out += status(r.Status)
		if r.Status == fsm.StatusOK {
			out += fmt.Sprintf(" next #%d", r.Attach.Next)
			if len(r.Attach.States) > 0 {
				out += " " + states(r.Attach.States)
			}
		}
	case fsm.KindReceive, fsm.KindRelease:
		out += status(r.Status)
		if r.Receive.Next > 0 {
			out += fmt.Sprintf(" next #%d", r.Receive.Next)
		}
		for _, d := range r.Receive.Deliveries {
			out += fmt.Sprintf("\n=> #%d %s attempt %d until %v", d.Number, s.place(d.Queue, d.Lane, d.Offset), d.Attempt, time.Duration(d.Deadline))
		}
	case fsm.KindSettle:
		out += status(r.Status)
		if len(r.Settle) > 0 {
			out += " " + states(r.Settle)
		}
	case fsm.KindQueuePurge, fsm.KindQueueDelete:
		out += fmt.Sprintf("%s removed %d", status(r.Status), r.Removed)
		if r.Conflict != "" {
			out += ": " + r.Conflict
		}
	case fsm.KindEdit:
		out += status(r.Status)
		for _, e := range r.Edits {
			out += " " + map[fsm.EditState]string{
				fsm.EditDone: "done", fsm.EditNotHere: "not here", fsm.EditLeased: "leased",
				fsm.EditUnchanged: "unchanged", fsm.EditRefused: "refused", fsm.EditChanged: "changed", fsm.EditCapped: "too many records",
			}[e]
		}
	case fsm.KindQueueCreate:
		out += status(r.Status)
		if r.Status == fsm.StatusOK {
			out += fmt.Sprintf(" number %d", r.Queue.Number)
		}
		if r.Conflict != "" {
			out += ": " + r.Conflict
		}
	case fsm.KindRestoreBegin, fsm.KindRestoreChunk, fsm.KindRestoreEnd:
		x := r.Restore
		out += fmt.Sprintf("%s; life %x, %d messages in %d queues", status(r.Status), x.Incarnation, x.Messages, x.Queues)
		if x.Under != 0 {
			out += fmt.Sprintf("; restore %x has %d chunks", x.Under, x.Chunks)
		}
		if x.Text != "" {
			out += ": " + x.Text
		}
	default:
		out += status(r.Status)
	}
	return out + "\n"
}

func (s *script) state() string {
	var b strings.Builder
	for _, q := range s.m.Queues() {
		c := q.Counts
		fmt.Fprintf(&b, "%s: stored %d = ready %d + leased %d + delayed %d + acked %d + purged %d", q.Name, c.Stored, c.Ready, c.Leased, c.Delayed, c.Acked, c.Purged)
		for _, more := range []struct {
			name string
			n    uint64
		}{{"parked", c.Parked}, {"expired", c.Expired}, {"dead-lettered", c.DeadLettered}, {"deleted", c.Deleted}, {"moved", c.Moved}} {
			if more.n > 0 {
				fmt.Fprintf(&b, " + %s %d", more.name, more.n)
			}
		}
		fmt.Fprintf(&b, "; delivered %d, redelivered: expired %d, nacked %d, gone %d, left %d; duplicates refused %d\n",
			c.Delivered, c.RedeliveredExpired, c.RedeliveredNacked, c.RedeliveredGone, c.RedeliveredLeft, c.DuplicatesRefused)
	}
	c := s.m.Counts()
	fmt.Fprintf(&b, "sessions %d, outcomes %d, consumers %d, leases %d, messages %d, records %d, bodies %d\n", c.Sessions, c.Outcomes, c.Consumers, c.Leases, c.Messages, c.Indexed, s.bodies.Len())
	return b.String()
}

func (s *script) restore() string {
	m, b := s.fresh()
	restore(s.t, s.m, m)
	if got, want := m.Digest(), s.m.Digest(); got != want {
		s.t.Fatalf("digest %016x after restore, %016x before", got, want)
	}
	s.m, s.bodies = m, b
	return "same digest\n"
}

// restore takes a snapshot of one machine into another.
func restore(t interface{ Fatal(...any) }, from, to *fsm.Machine) {
	snap, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	if err := to.Restore(&buf); err != nil {
		t.Fatal(err)
	}
}

// backup keeps a backup of the machine under a name.
func (s *script) backup(d *datadriven.TestData) string {
	var as string
	d.ScanArgs(s.t, "as", &as)
	b, err := fsmtest.TakeBackup(s.m, fsm.Config{Group: fsmtest.Group, Limits: s.limits})
	if err != nil {
		s.t.Fatal(err)
	}
	copy(b.ID[:], as)
	s.backups[as] = b
	return fmt.Sprintf("life %x, %d messages in %d queues, %d sessions\n", b.Head.Incarnation, b.Head.Messages, b.Head.Queues, b.Head.Sessions)
}

// restoring reads
//
//	restore-begin NAME life=1 next=2 [replaces=3] [force]
//	restore-chunks NAME life=1 next=2
//	restore-end NAME life=1 next=2 [abort]
func (s *script) restoring(line string) []fsmtest.Command {
	words := strings.Fields(line)
	b := s.backups[words[1]]
	if b == nil {
		s.t.Fatalf("%s: no such backup", line)
	}
	life, next, replaces := uint64(fsmtest.Incarnation), uint64(0), uint64(0)
	flag := false
	for _, w := range words[2:] {
		k, v, ok := strings.Cut(w, "=")
		n, err := strconv.ParseUint(v, 0, 64)
		switch {
		case !ok:
			flag = true
		case err != nil:
			s.t.Fatalf("%s: %v", line, err)
		case k == "life":
			life = n
		case k == "next":
			next = n
		case k == "replaces":
			replaces = n
		}
	}
	switch words[0] {
	case "restore-begin":
		return []fsmtest.Command{b.Begin(life, next, replaces, flag)}
	case "restore-end":
		return []fsmtest.Command{b.End(life, next, flag)}
	}
	return b.Chunks(life, next)
}

// parseCommand reads lines such as
//
//	term node=n1
//	raise version=2
//	create orders lease=30s length=10 bytes=1000 ttl=1m limit=3 dead=orders.dead backoff=1s-1m single
//	update number=1 revision=1 ...the same...
//	pause|resume number=1 [revision=1] [nonce=a]
//	open nonce=a [name=svc expect=1]
//	publish orders s=1 [epoch=1] [floor=1] seq=1 [after=..] [key=k] [priority=3] [delay=5s] [at=unix s] [ttl=1m] body [body ...]
//	ackpublish c1 number=1 s=1 seq=2 queue:body [queue:body ...]
//	seal s=1 seq=1,2
//	attach c1 n=1 queue=orders credit=2 [done=1] [unsettled=1-3,5]
//	ack|nack|extend|reject c1 1-3 [time=5s] [done=4] [reason=text]
//	edit number=1 delete|requeue|release|move 3,4 [lane=0] [turn=0] [nonce=a] [to=queue]
//	leave c1 n=1 [unhandled=2-3]
//	receive p1 queue=orders n=10 [first=1] [done=1]
//	release p1 queue=orders [first=1] [done=1]
//	any of them life=2: for that incarnation
//	detach c1 n=1
func parseCommand(t *testing.T, line string) fsmtest.Command {
	words := strings.Fields(line)
	args := map[string]string{}
	var plain []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			args[k] = v
		} else {
			plain = append(plain, w)
		}
	}
	num := func(key string, otherwise uint64) uint64 {
		v, ok := args[key]
		if !ok {
			return otherwise
		}
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	inc := num("life", fsmtest.Incarnation)
	const grp = fsmtest.Group
	switch verb := words[0]; verb {
	case "term":
		return fsmtest.New(fsmtest.Term{Node: args["node"], Incarnation: num("life", 0)})
	case "raise":
		return fsmtest.New(fsmtest.Raise{Version: uint32(num("version", 2))})
	case "hold-grace":
		return fsmtest.New(fsmtest.HoldGrace{})
	case "digest":
		return fsmtest.New(fsmtest.DigestCommand{})
	case "detach":
		return fsmtest.New(fsmtest.Detach{Consumer: fsm.ConsumerID(consumer(plain[0])), N: num("n", 1)})
	case "create":
		return fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: plain[0], Deletions: num("deletions", 0), Settings: settings(t, args, plain, num)})
	case "update":
		return fsmtest.New(wire.QueueUpdate{Incarnation: inc, Group: grp, Number: num("number", 1), Revision: num("revision", 1), Nonce: nonce(args["nonce"]), Settings: settings(t, args, plain, num)})
	case "pause", "resume":
		return fsmtest.New(wire.QueuePause{Incarnation: inc, Group: grp, Number: num("number", 1), Revision: num("revision", 1), Nonce: nonce(args["nonce"]), Paused: verb == "pause"})
	case "delete":
		return fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: num("number", 1), Force: args["force"] == "yes"})
	case "edit":
		e := wire.Edit{Incarnation: inc, Group: grp, Number: num("number", 1), Nonce: nonce(args["nonce"]), Target: args["to"], Verb: map[string]wire.EditVerb{
			"delete": wire.EditVerb(fsm.EditDelete), "requeue": wire.EditVerb(fsm.EditRequeue), "release": wire.EditVerb(fsm.EditRelease), "move": wire.EditVerb(fsm.EditMove),
		}[plain[0]]}
		for part := range strings.SplitSeq(plain[1], ",") {
			n, err := strconv.ParseUint(part, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			e.Places = append(e.Places, wire.Place{Lane: uint8(num("lane", 0)), Offset: n, Turn: num("turn", 0)})
		}
		return fsmtest.New(e)
	case "ackpublish":
		c := wire.AckPublish{
			Incarnation: inc, Group: grp, Session: num("s", 1), Epoch: num("epoch", 1), Floor: num("floor", 0), Sequence: num("seq", 0),
			Consumer: consumer(plain[0]), Number: num("number", 1), Done: num("done", 1),
		}
		for _, out := range plain[1:] {
			queue, body, _ := strings.Cut(out, ":")
			c.Outputs = append(c.Outputs, wire.Output{Queue: queue, Messages: []wire.Message{{Body: []byte(body)}}})
		}
		c.Checksum = wire.AckPublishChecksum(c.Consumer, c.Number, c.Outputs)
		return fsmtest.New(c)
	case "purge":
		return fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: num("number", 1), Revision: num("revision", 1), Nonce: nonce(args["nonce"])})
	case "open":
		return fsmtest.New(wire.OpenSession{
			Incarnation: num("incarnation", inc), Group: grp, Named: args["name"] != "", Name: args["name"],
			ExpectedEpoch: num("expect", 0), Nonce: nonce(args["nonce"]),
		})
	case "close":
		return fsmtest.New(wire.CloseSession{Incarnation: inc, Group: grp, Session: num("s", 1), Epoch: num("epoch", 1)})
	case "publish":
		f := fsmtest.Frame(num("s", 1), num("epoch", 1), num("floor", 0), num("seq", 0), num("after", 0), plain[0], plain[1:]...)
		f.Incarnation = num("incarnation", inc)
		if args["sum"] == "bad" {
			f.Publishes[0].Checksum++
		}
		p := &f.Publishes[0]
		for i := range p.Messages {
			m := &p.Messages[i]
			m.OrderingKey, m.Priority = args["key"], uint8(num("priority", 0))
			m.Delay, m.DeliverAt, m.TTL = duration(t, args["delay"]), int64(num("at", 0))*int64(time.Second), duration(t, args["ttl"])
		}
		if args["sum"] != "bad" {
			p.Checksum = wire.PublishChecksum(plain[0], p.Messages)
		}
		return fsmtest.New(f)
	case "seal":
		s := wire.Seal{Incarnation: inc, Group: grp, Session: num("s", 1), Epoch: num("epoch", 1)}
		for _, r := range ranges(t, args["seq"]) {
			for n := r.From; n <= r.To; n++ {
				s.Sequences = append(s.Sequences, n)
			}
		}
		return fsmtest.New(s)
	case "attach":
		return fsmtest.New(wire.Attach{
			Incarnation: inc, Group: grp, Consumer: consumer(plain[0]), N: num("n", 1), Queue: args["queue"],
			Credit: uint32(num("credit", 1)), Done: num("done", 1), Unsettled: ranges(t, args["unsettled"]),
		})
	case "receive":
		return fsmtest.New(wire.Receive{
			Incarnation: inc, Group: grp, Consumer: consumer(plain[0]), Queue: args["queue"], First: num("first", 1), Done: num("done", 1),
			Limit: uint32(num("n", 1)),
		})
	case "release":
		return fsmtest.New(wire.Release{
			Incarnation: inc, Group: grp, Consumer: consumer(plain[0]), Queue: args["queue"], First: num("first", 1), Done: num("done", 1),
		})
	case "leave":
		return fsmtest.New(wire.Leave{
			Incarnation: inc, Group: grp, Consumer: consumer(plain[0]), N: num("n", 1),
			Done: num("done", 1), NotHandled: ranges(t, args["unhandled"]),
		})
	case "ack", "nack", "extend", "reject":
		v := map[string]wire.SettleVerb{"ack": wire.VerbAck, "nack": wire.VerbNack, "extend": wire.VerbExtend, "reject": wire.VerbReject}[verb]
		s := wire.Settle{Incarnation: inc, Group: grp, Consumer: consumer(plain[0]), Done: num("done", 1)}
		for _, r := range ranges(t, plain[1]) {
			s.Items = append(s.Items, wire.SettleItem{From: r.From, To: r.To, Verb: v, Time: duration(t, args["time"]), Reason: args["reason"]})
		}
		return fsmtest.New(s)
	default:
		t.Fatalf("unknown command %q", line)
		panic("unreachable")
	}
}

// settings reads a queue's settings; without backoff= there is none.
func settings(t *testing.T, args map[string]string, plain []string, num func(string, uint64) uint64) wire.QueueSettings {
	s := wire.QueueSettings{
		LeaseTime: duration(t, args["lease"]), LengthMax: num("length", 0), BytesMax: num("bytes", 0), TTL: duration(t, args["ttl"]),
		DeliveryLimit: uint32(num("limit", 0)), DeadLetter: args["dead"], BackoffMin: -1,
		SingleActive: len(plain) > 0 && plain[len(plain)-1] == "single",
	}
	if from, to, ok := strings.Cut(args["backoff"], "-"); ok {
		s.BackoffMin, s.BackoffMax = duration(t, from), duration(t, to)
	}
	return s
}

func consumer(s string) (id wire.ConsumerID) { copy(id[:], s); return id }
func nonce(s string) (n wire.Nonce)          { copy(n[:], s); return n }
func name(id fsm.ConsumerID) string          { return strings.TrimRight(string(id[:]), "\x00") }

func duration(t *testing.T, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ranges(t *testing.T, s string) (rs []wire.Range) {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 64)
		b, err2 := strconv.ParseUint(to, 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("bad range %q", part)
		}
		rs = append(rs, wire.Range{From: a, To: b})
	}
	return rs
}

func states(ds []fsm.DeliveryState) string {
	var out []string
	for _, d := range ds {
		r := fmt.Sprintf("#%d", d.From)
		if d.To != d.From {
			r += fmt.Sprintf("-%d", d.To)
		}
		out = append(out, r+" "+wire.LeaseState(d.State).String())
	}
	return strings.Join(out, ", ")
}

func status(s fsm.Status) string { return wire.Status(s).String() }

var kinds = map[fsm.Kind]string{
	fsm.KindTerm: "term", fsm.KindDetach: "detach", fsm.KindHoldGrace: "hold-grace", fsm.KindRaise: "raise", fsm.KindDigest: "digest",
	fsm.KindOpenSession: "open", fsm.KindCloseSession: "close", fsm.KindPublish: "publish", fsm.KindSeal: "seal",
	fsm.KindAttach: "attach", fsm.KindLeave: "leave", fsm.KindSettle: "settle",
	fsm.KindQueueCreate: "create", fsm.KindQueueDelete: "delete", fsm.KindQueuePurge: "purge",
	fsm.KindQueueUpdate: "update", fsm.KindQueuePause: "pause", fsm.KindEdit: "edit", fsm.KindAckPublish: "ackpublish",
	fsm.KindReceive: "receive", fsm.KindRelease: "release",
	fsm.KindRestoreBegin: "restore-begin", fsm.KindRestoreChunk: "restore-chunk", fsm.KindRestoreEnd: "restore-end",
}
