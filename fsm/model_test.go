package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// TestMachine_BehavesLikeTheModel runs random entries through the machine, a
// second replica of it, and the slow and obvious model. Late and repeated copies
// are drawn from everything that was ever sent; at random points a replica is
// replaced by one restored from a snapshot.
func TestMachine_BehavesLikeTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicas(t, caps(t))
		r.apply(fsmtest.New(fsmtest.Term{Node: "n1"}))
		if rapid.IntRange(0, 3).Draw(t, "an old cluster") > 0 {
			r.apply(fsmtest.New(fsmtest.Raise{Version: fsm.MachineVersion}))
		}
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			r.step()
		}
		r.a.EndCopy()
	})
}

// TestMachine_DeadLettersAndWhatEndsBesideThem_BehaveLikeTheModel: several leases and
// messages end in one entry, in whatever order they were due. It decides in which order
// dead letters come, and which of them find room.
func TestMachine_DeadLettersAndWhatEndsBesideThem_BehaveLikeTheModel(t *testing.T) {
	t.Parallel()
	const inc, grp = fsmtest.Incarnation, fsmtest.Group
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicas(t, fsm.Limits{})
		second := func(label string) time.Duration { return time.Duration(r.small(label, 9)) * time.Second }
		create := func(name string, s wire.QueueSettings) fsmtest.Command {
			s.BackoffMin = -1
			return fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: name, Settings: s})
		}
		r.apply(
			fsmtest.New(fsmtest.Term{Node: "n1"}), fsmtest.New(fsmtest.Raise{Version: uint32(r.small("version", int(fsm.MachineVersion)))}),
			fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: r.nonce()}),
			create("a", wire.QueueSettings{LeaseTime: second("lease"), DeliveryLimit: 1, DeadLetter: "b"}),
			create("b", wire.QueueSettings{LeaseTime: second("other lease"), DeliveryLimit: 1, LengthMax: r.small("length", 4)}),
		)
		var cs []fsmtest.Command
		for i := range byte(r.small("consumers", 3)) {
			cs = append(cs, fsmtest.New(wire.Attach{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1 + i}, N: 1, Queue: "a", Credit: 2, Done: 1}))
		}
		for seq := range r.small("messages", 9) {
			m := wire.Message{Body: []byte{byte(seq)}}
			queue := rapid.SampledFrom(queueNames).Draw(t, "queue")
			if queue == "b" {
				m.TTL = second("ttl")
			}
			cs = append(cs, fsmtest.New(wire.PublishFrame{Incarnation: inc, Group: grp, Session: 1, Epoch: 1, Floor: 1, Queue: queue, Publishes: []wire.Publish{{Sequence: 1 + seq, Messages: []wire.Message{m}}}}))
		}
		r.apply(cs...)
		for i := range byte(3) {
			if rapid.Bool().Draw(t, "extend") {
				item := wire.SettleItem{From: 1, To: 1 + r.small("to", 2), Verb: wire.VerbExtend, Time: second("extension")}
				r.apply(fsmtest.New(wire.Settle{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{1 + i}, Done: 1, Items: []wire.SettleItem{item}}))
			}
		}
		r.now = 20 * time.Second
		r.apply()
		r.apply(fsmtest.New(wire.Receive{Incarnation: inc, Group: grp, Consumer: wire.ConsumerID{4}, Queue: "b", First: 1, Done: 1, Limit: 9, Wait: time.Second}))
	})
}

// replicas are two machines and a model that get the same log.
type replicas struct {
	t      *rapid.T
	a, b   *fsm.Machine
	bodies *storage.Memory // of a
	limits fsm.Limits
	// unmodelled: budgets are so small that the model, which has none, says something else.
	unmodelled, more bool
	staging          bool // a backup comes in, whose bodies are there already
	model            *fsmtest.Model
	index            uint64
	now              time.Duration
	wall             int64 // of the leader; the next one's may be behind
	sent             []fsmtest.Command
	nonces           byte
	stored           map[string]string // (session, sequence) to where it was stored
	handed           []fsm.Delivery    // all that ever were
}

func newReplicas(t *rapid.T, limits fsm.Limits) *replicas {
	r := &replicas{t: t, bodies: storage.NewMemory(), stored: map[string]string{}, limits: limits}
	r.model = &fsmtest.Model{Limits: r.limits, Backoff: backoff}
	r.a = fsm.New(r.config(), r.bodies)
	r.b = fsm.New(r.config(), storage.NewMemory())
	return r
}

func (r *replicas) config() fsm.Config { return fsm.Config{Group: fsmtest.Group, Limits: r.limits} }

// caps draws caps that are soon reached; most are not there.
func caps(t *rapid.T) (l fsm.Limits) {
	if rapid.Bool().Draw(t, "no caps") {
		return l
	}
	cap := func(label string, from, to int) int {
		if rapid.IntRange(0, 2).Draw(t, label+" capped") > 0 {
			return 0
		}
		return rapid.IntRange(from, to).Draw(t, label)
	}
	l.SessionsMax, l.QueuesMax, l.ConsumersMax = cap("sessions", 1, 3), cap("queues", 1, 2), cap("consumers", 1, 4)
	l.SessionBytesMax = int64(cap("session bytes", fsm.SessionBytes, 4*fsm.SessionBytes))
	l.LeasesMax, l.CreditMax = cap("leases", 1, 8), uint32(cap("credit", 1, 3))
	if l.OutcomesMax = cap("outcomes", 1, 6); l.OutcomesMax > 0 {
		l.SealsMax = rapid.IntRange(1, 3).Draw(t, "seals")
	}
	if l.IndexedMax = cap("indexed", 1, 6); l.IndexedMax > 0 {
		l.ReturnsMax = rapid.IntRange(1, 4).Draw(t, "returns")
	}
	l.GoneRangesMax = cap("gone", 1, 3)
	l.NotesBytesMax = int64(cap("notes", 1, 40))
	return l
}

func (r *replicas) step() {
	switch rapid.IntRange(0, 9).Draw(r.t, "time") {
	case 0, 1, 2:
		r.now += time.Duration(rapid.IntRange(1, 3000).Draw(r.t, "ms")) * time.Millisecond
	case 3:
		r.now += time.Duration(rapid.IntRange(1, 40).Draw(r.t, "s")) * time.Second
	case 4:
		if rapid.IntRange(0, 9).Draw(r.t, "long") == 0 {
			r.now += time.Duration(rapid.IntRange(1, 80).Draw(r.t, "h")) * time.Hour
		}
	}
	r.wall = int64(r.small("wall clock", 60)) * int64(time.Second)
	var cs []fsmtest.Command
	for range rapid.IntRange(0, 4).Draw(r.t, "commands") {
		cs = append(cs, r.command())
	}
	r.apply(cs...)
	// The snapshot that a replica comes from was copied over many entries, in
	// whatever pieces, or not before the last.
	switch rapid.IntRange(0, 5).Draw(r.t, "copy") {
	case 0:
		r.a.BeginCopy()
	case 1, 2:
		r.a.CopySome(rapid.IntRange(1, 2000).Draw(r.t, "bytes"), nil)
	case 3:
		if rapid.IntRange(0, 5).Draw(r.t, "drop") == 0 {
			r.a.EndCopy()
		}
	}
	if rapid.IntRange(0, 7).Draw(r.t, "restore") == 0 {
		bodies := storage.NewMemory()
		fresh := fsm.New(r.config(), bodies)
		restore(r.t, r.a, fresh)
		r.a, r.bodies = fresh, bodies
	}
}

func (r *replicas) apply(cs ...fsmtest.Command) {
	r.sent = append(r.sent, cs...)
	r.index++
	r.model.Wall = r.wall
	entry := fsmtest.Entry(r.index, fsm.Time(r.now), r.wall, cs...)
	effA, served, err := fsm.ApplyTold(r.a, r.index, entry)
	if err != nil {
		r.t.Fatal(err)
	}
	r.model.Served = r.model.Served[:0]
	for _, o := range served {
		r.model.Served = append(r.model.Served, fsmtest.Owner{Queue: o.Queue, Consumer: wire.ConsumerID(o.Consumer)})
	}
	effB, err := r.b.Apply(r.index, entry)
	if err != nil {
		r.t.Fatal(err)
	}
	if a, b := fsmtest.Describe(effA), fsmtest.Describe(effB); !slices.Equal(a, b) {
		r.t.Fatalf("replicas disagree at %d:\n%v\n%v", r.index, a, b)
	}
	if wrong := append(fsm.WrongSums(r.a), fsm.WrongSums(r.b)...); wrong != nil {
		r.t.Fatalf("entry %d: %v", r.index, wrong)
	}
	if a, b := r.a.Digest(), r.b.Digest(); a != b {
		r.t.Fatalf("digests differ at %d: %016x, %016x: %v", r.index, a, b, append(fsm.DifferentRows(r.a, r.b), append(fsm.StaleRows(r.a), fsm.StaleRows(r.b)...)...))
	}
	r.more = effA.More
	if r.unmodelled {
		r.invariants(effA)
		return
	}
	want := fsmtest.SortLosses(r.model.Apply(r.now, cs))
	if got := fsmtest.Describe(effA); !slices.Equal(got, want) {
		for _, c := range cs {
			r.t.Logf("%+v", c.Request)
		}
		r.t.Fatalf("entry %d at %v:\nmachine %q\nmodel   %q", r.index, r.now, got, want)
	}
	if got, want := r.a.Counts().Indexed, uint64(r.model.Records()); got != want {
		r.t.Fatalf("entry %d: %d records, the model says %d", r.index, got, want)
	}
	ranges := 0
	for _, q := range r.a.Queues() {
		ranges += fsm.GoneRanges(r.a, q.Name)
	}
	if want := r.model.Ranges(); ranges != want {
		r.t.Fatalf("entry %d: %d ranges of what is gone, the model says %d", r.index, ranges, want)
	}
	r.invariants(effA)
}

// invariants are the promises themselves, told without the model.
func (r *replicas) invariants(eff *fsm.Effects) {
	var messages uint64
	for _, q := range r.a.Queues() {
		if q.Counts.Stored != q.Counts.Sum() {
			r.t.Fatalf("queue %s: stored %d, states add up to %d", q.Name, q.Counts.Stored, q.Counts.Sum())
		}
		messages += q.Counts.Here()
		r.looks(q)
	}
	if c := r.a.Counts(); c.Messages != messages || c.Messages != uint64(r.bodies.Len()) && !r.staging {
		r.t.Fatalf("queues hold %d messages, counted %d, bodies %d", messages, c.Messages, r.bodies.Len())
	}
	r.handed = append(r.handed, eff.Deliveries...)
	for i := range r.handed {
		if d := &r.handed[i]; r.a.Holds(d) && !r.body(d.Queue, d.Lane, d.Offset) {
			r.t.Fatalf("entry %d: %+v is held and has no body", r.index, d)
		}
	}
	for i, res := range eff.Results {
		r.handed = append(r.handed, res.Receive.Deliveries...)
		if res.Kind != fsm.KindPublish {
			continue
		}
		f := r.sent[len(r.sent)-len(eff.Results)+i].Request.(wire.PublishFrame)
		for _, p := range res.Publish {
			if p.Status != fsm.StatusOK {
				continue
			}
			id, place := fmt.Sprintf("s%d.%d", f.Session, p.Sequence), fmt.Sprintf("%d/%d.%d", p.Queue, p.Lane, p.Offset)
			if was, ok := r.stored[id]; ok && was != place {
				r.t.Fatalf("%s was stored at %s and at %s", id, was, place)
			} else if !ok && p.Duplicate {
				r.t.Fatalf("%s: called a duplicate, and no copy was stored before", id)
			} else if ok && !p.Duplicate {
				r.t.Fatalf("%s was stored twice", id)
			}
			r.stored[id] = place
		}
	}
}

func (r *replicas) body(queue uint64, lane uint8, offset uint64) bool {
	_, _, ok := r.bodies.Get(queue, lane, offset)
	return ok
}

// looks finds as many messages in each state as are counted in it, and the same again
// from the second on.
func (r *replicas) looks(q fsm.QueueInfo) {
	found := map[fsm.MessageState]uint64{}
	for state := fsm.MessageReady; state <= fsm.MessageParked; state++ {
		all, _ := r.a.Peek(q.Name, state, fsm.MessageInfo{}, fsm.PeekMax)
		found[state] = uint64(len(all))
		for _, i := range all {
			d := fsm.Delivery{Consumer: i.Consumer, Number: i.Number, Queue: q.Number, Lane: i.Lane, Offset: i.Offset}
			if !r.a.Stored(q.Number, &i) || r.a.Holds(&d) != (state == fsm.MessageLeased) || !r.body(q.Number, i.Lane, i.Offset) {
				r.t.Fatalf("queue %s: %+v is not stored, or not held as it says, or has no body", q.Name, i)
			}
		}
		if len(all) < 2 || all[1].Lane == 0 && all[1].Offset == 0 { // the zero place is the beginning
			continue
		}
		if rest, _ := r.a.Peek(q.Name, state, all[1], fsm.PeekMax); len(rest) != len(all)-1 || rest[0].Lane != all[1].Lane || rest[0].Offset != all[1].Offset {
			r.t.Fatalf("queue %s, state %d: %d messages, and from the second on %d", q.Name, state, len(all), len(rest))
		}
	}
	n := q.Counts
	if found[fsm.MessageReady]+found[fsm.MessageBlocked] != n.Ready || found[fsm.MessageDelayed] != n.Delayed || found[fsm.MessageLeased] != n.Leased || found[fsm.MessageParked] != n.Parked {
		r.t.Fatalf("queue %s: found %v by looking, counted %+v", q.Name, found, n)
	}
}

// backoff is the machine's own, for the model.
func backoff(s wire.QueueSettings, queue uint64, lane uint8, offset uint64, failures uint32) time.Duration {
	return fsm.Backoff(fsm.QueueSettings(s), queue, lane, offset, failures)
}

var queueNames = []string{"a", "b"}

func (r *replicas) small(label string, most int) uint64 {
	return uint64(rapid.IntRange(1, most).Draw(r.t, label))
}

func (r *replicas) nonce() wire.Nonce {
	r.nonces++
	return wire.Nonce{r.nonces, 1}
}

// command draws a command that makes sense more often than not, or a copy of
// one that was sent before.
func (r *replicas) command() fsmtest.Command {
	t := r.t
	if len(r.sent) > 0 && rapid.IntRange(0, 5).Draw(t, "late copy") == 0 {
		return rapid.SampledFrom(r.sent).Draw(t, "copy")
	}
	const inc, grp = fsmtest.Incarnation, fsmtest.Group
	queue := rapid.SampledFrom(queueNames).Draw(t, "queue")
	consumer := wire.ConsumerID{rapid.ByteRange(1, 3).Draw(t, "consumer")}
	if rapid.IntRange(0, 2).Draw(t, "pull") == 0 {
		consumer[0] += 2 // 3 is now this, now that
	}
	switch k := rapid.IntRange(0, 56).Draw(t, "kind"); {
	case k == 0:
		return fsmtest.New(fsmtest.Term{Node: "n"})
	case k == 1:
		return fsmtest.New(fsmtest.Detach{Consumer: fsm.ConsumerID(consumer), N: r.small("n", 3)})
	case k == 2 && rapid.Bool().Draw(t, "raise"):
		return fsmtest.New(fsmtest.Raise{Version: uint32(r.small("version", int(fsm.MachineVersion)))})
	case k == 2:
		return fsmtest.New(fsmtest.HoldGrace{})
	case k < 5:
		o := wire.OpenSession{Incarnation: inc, Group: grp, Nonce: r.nonce()}
		if rapid.Bool().Draw(t, "named") {
			o.Named, o.Name, o.ExpectedEpoch = true, "svc", r.small("epoch", 5)-1
		}
		return fsmtest.New(o)
	case k == 5:
		return fsmtest.New(wire.CloseSession{Incarnation: inc, Group: grp, Session: r.small("session", 3), Epoch: r.small("epoch", 2)})
	case k < 8:
		return fsmtest.New(wire.QueueCreate{Incarnation: inc, Group: grp, Name: queue, Deletions: r.small("deletions", 4) - 1, Settings: r.settings(queue)})
	case k == 8:
		return fsmtest.New(wire.QueueDelete{Incarnation: inc, Group: grp, Number: r.small("number", 3), Force: rapid.Bool().Draw(t, "force")})
	case k == 9:
		return fsmtest.New(wire.QueuePurge{Incarnation: inc, Group: grp, Number: r.small("number", 3), Revision: r.small("revision", 3), Nonce: r.nonce()})
	case k == 10:
		s := wire.Seal{Incarnation: inc, Group: grp, Session: r.small("session", 3), Epoch: r.small("epoch", 2)}
		for range r.small("sequences", 3) {
			s.Sequences = append(s.Sequences, r.small("sequence", 12))
		}
		return fsmtest.New(s)
	case k < 22:
		return r.publish(queue)
	case k < 28:
		if consumer[0] > 3 {
			return r.receive(consumer, queue)
		}
		a := wire.Attach{
			Incarnation: inc, Group: grp, Consumer: consumer, N: r.small("n", 3), Queue: queue,
			Credit: uint32(r.small("credit", 4)), Done: r.small("done", 6), Unsettled: r.ranges(),
		}
		return fsmtest.New(a)
	case k == 28:
		return fsmtest.New(wire.Leave{Incarnation: inc, Group: grp, Consumer: consumer, N: r.small("n", 3), Done: r.small("done", 6), NotHandled: r.ranges()})
	case k < 31:
		return fsmtest.New(wire.QueueUpdate{
			Incarnation: inc, Group: grp, Number: r.small("number", 2), Revision: r.small("revision", 3),
			Nonce: r.nonce(), Settings: r.settings(queue),
		})
	case k == 31:
		return fsmtest.New(wire.QueuePause{Incarnation: inc, Group: grp, Number: r.small("number", 2), Revision: r.small("revision", 3), Nonce: r.nonce(), Paused: rapid.IntRange(0, 2).Draw(t, "paused") == 0})
	case k < 35:
		return r.edit(queue)
	case k < 38:
		return r.ackPublish(consumer)
	case k < 44:
		return r.receive(wire.ConsumerID{rapid.ByteRange(3, 5).Draw(t, "puller")}, queue)
	default:
		s := wire.Settle{Incarnation: inc, Group: grp, Consumer: consumer, Done: r.small("done", 10)}
		for _, x := range r.ranges() {
			it := wire.SettleItem{From: x.From, To: x.To, Verb: rapid.SampledFrom([]wire.SettleVerb{wire.VerbAck, wire.VerbAck, wire.VerbNack, wire.VerbNack, wire.VerbExtend, wire.VerbReject}).Draw(t, "verb")}
			if rapid.Bool().Draw(t, "timed") && it.Verb != wire.VerbReject {
				it.Time = time.Duration(r.small("time", 30)) * time.Second
			}
			if it.Verb == wire.VerbNack || it.Verb == wire.VerbReject {
				it.Reason = strings.Repeat("why", rapid.IntRange(0, 3).Draw(t, "reason"))
			}
			s.Items = append(s.Items, it)
		}
		return fsmtest.New(s)
	}
}

// receive draws a receive or a release, mostly with the number that the puller
// would name.
func (r *replicas) receive(consumer wire.ConsumerID, queue string) fsmtest.Command {
	t := r.t
	first, done := r.model.Next(consumer), r.small("done", 10)
	if rapid.IntRange(0, 5).Draw(t, "another number") == 0 {
		first = r.small("first", 8)
	}
	if rapid.IntRange(0, 5).Draw(t, "give up") == 0 {
		return fsmtest.New(wire.Release{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: consumer, Queue: queue, First: first, Done: done})
	}
	return fsmtest.New(wire.Receive{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: consumer, Queue: queue, First: first, Done: done,
		Limit: uint32(r.small("limit", 4)), Wait: time.Second,
	})
}

func (r *replicas) settings(queue string) wire.QueueSettings {
	t := r.t
	s := wire.QueueSettings{LeaseTime: time.Duration(r.small("lease", 20)) * time.Second, BackoffMin: -1}
	often := func(label string) bool { return rapid.IntRange(0, 2).Draw(t, label) == 0 }
	if often("limited") {
		s.LengthMax = r.small("length", 8)
	}
	if often("bytes") {
		s.BytesMax = r.small("bytes limit", 200)
	}
	if often("ttl") {
		s.TTL = time.Duration(r.small("ttl", 30)) * time.Second
	}
	if often("delivery limit") {
		s.DeliveryLimit = uint32(r.small("failures", 3))
	}
	if often("backoff") {
		s.BackoffMin, s.BackoffMax = 2*time.Second, 7*time.Second
	}
	s.SingleActive = rapid.IntRange(0, 4).Draw(t, "single") == 0
	if rapid.Bool().Draw(t, "dead letters") {
		s.DeadLetter = rapid.SampledFrom([]string{"a", "b", "nowhere"}).Draw(t, "dead-letter queue")
		if s.DeadLetter == queue {
			s.DeadLetter = ""
		}
	}
	return s
}

// options draws what a message may carry beside its body.
func (r *replicas) options(m *wire.Message, priority uint8) {
	t := r.t
	m.Priority = priority
	k := rapid.IntRange(0, 7).Draw(t, "option")
	switch {
	case k == 0 && priority == 0:
		m.OrderingKey = rapid.SampledFrom([]string{"k", "l"}).Draw(t, "key")
	case k == 1:
		m.Delay = time.Duration(r.small("delay", 20)) * time.Second
	case k == 2:
		m.TTL = time.Duration(r.small("own ttl", 30)) * time.Second
	case k == 3:
		m.DeliverAt = int64(r.small("deliver at", 80)) * int64(time.Second)
	}
	if (k == 1 || k == 3 || k == 0 && priority == 0) && rapid.IntRange(0, 3).Draw(t, "with a ttl") == 0 {
		m.TTL = time.Duration(r.small("own ttl", 30)) * time.Second
	}
}

func (r *replicas) edit(queue string) fsmtest.Command {
	t := r.t
	e := wire.Edit{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Number: r.small("number", 2), Nonce: r.nonce(), Verb: wire.EditVerb(rapid.IntRange(1, 4).Draw(t, "edit"))}
	if rapid.Bool().Draw(t, "to a queue") {
		e.Target = queue
	}
	for range r.small("places", 3) {
		p := wire.Place{Lane: rapid.SampledFrom([]uint8{0, 0, 0, 3}).Draw(t, "lane"), Offset: r.small("offset", 8) - 1}
		if p.Turn = r.model.Turn(e.Number, p.Lane, p.Offset); rapid.IntRange(0, 7).Draw(t, "another turn") == 0 {
			p.Turn = r.small("turn", 4) - 1
		}
		e.Places = append(e.Places, p)
	}
	return fsmtest.New(e)
}

func (r *replicas) ackPublish(consumer wire.ConsumerID) fsmtest.Command {
	t := r.t
	c := wire.AckPublish{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Session: r.small("session", 3), Epoch: r.small("epoch", 2),
		Sequence: r.small("sequence", 12), Consumer: consumer, Number: r.small("number", 10), Done: r.small("done", 5),
	}
	c.Floor = uint64(rapid.IntRange(0, int(c.Sequence)).Draw(t, "floor"))
	for _, q := range queueNames[:rapid.IntRange(1, 2).Draw(t, "outputs")] {
		m := wire.Message{Body: []byte(fmt.Sprint(c.Sequence))}
		r.options(&m, 0)
		c.Outputs = append(c.Outputs, wire.Output{Queue: q, Messages: []wire.Message{m}})
	}
	c.Checksum = wire.AckPublishChecksum(c.Consumer, c.Number, c.Outputs)
	return fsmtest.New(c)
}

func (r *replicas) publish(queue string) fsmtest.Command {
	t := r.t
	seq := uint64(rapid.IntRange(1, 12).Draw(t, "sequence"))
	floor := uint64(rapid.IntRange(0, int(seq)).Draw(t, "floor"))
	if rapid.Bool().Draw(t, "low floor") {
		floor = 1
	}
	after := uint64(0)
	if rapid.IntRange(0, 3).Draw(t, "ordered") == 0 {
		after = seq - 1
	}
	f := wire.PublishFrame{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group,
		Session: uint64(rapid.IntRange(1, 3).Draw(t, "session")), Epoch: uint64(rapid.IntRange(1, 2).Draw(t, "epoch")),
		Floor: floor, Queue: queue,
	}
	for range rapid.IntRange(1, 2).Draw(t, "publishes") {
		ms := make([]wire.Message, rapid.IntRange(1, 3).Draw(t, "messages"))
		priority := rapid.SampledFrom([]uint8{0, 0, 0, 3}).Draw(t, "priority")
		for k := range ms {
			ms[k].Body = fmt.Appendf(nil, "%d.%d", seq, k)
			r.options(&ms[k], priority)
		}
		f.Publishes = append(f.Publishes, wire.Publish{Sequence: seq, After: after, Checksum: wire.PublishChecksum(queue, ms), Messages: ms})
		seq, after = seq+1, seq
	}
	return fsmtest.New(f)
}

func (r *replicas) ranges() (rs []wire.Range) {
	for range rapid.IntRange(1, 3).Draw(r.t, "ranges") {
		from := uint64(rapid.IntRange(1, 12).Draw(r.t, "from"))
		rs = append(rs, wire.Range{From: from, To: from + uint64(rapid.IntRange(0, 4).Draw(r.t, "more"))})
	}
	return rs
}
