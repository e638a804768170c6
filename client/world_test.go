package client

import (
	"math/rand"
	"sync"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// world is a cluster made of the real machine behind scripted nodes. What a real
// one loses, this one loses often: requests, replies, connections, leaders; and
// copies of requests arrive long after.
type world struct {
	t       *testing.T
	net     *fakeNet
	calm    bool // no more faults; guarded by net.mu
	started time.Time
	jobs    chan *fakeRequest
	stop    chan struct{}
	wg      sync.WaitGroup

	mu        sync.Mutex // guards what follows
	rng       *rand.Rand
	machine   *fsm.Machine
	bodies    *storage.Memory
	index     uint64
	term      uint64
	leader    *fakeNode
	consumers map[fsm.ConsumerID]place
	stored    []string       // bodies, in storing order
	offsets   map[string]int // how often each was stored
}

type place struct {
	conn *fakeConn
	n    uint64
}

func newWorld(t *testing.T, net *fakeNet, seed int64) *world {
	w := &world{
		t: t, net: net, started: time.Now(), jobs: make(chan *fakeRequest, 10_000), stop: make(chan struct{}),
		rng: rand.New(rand.NewSource(seed)), bodies: storage.NewMemory(),
		consumers: map[fsm.ConsumerID]place{}, offsets: map[string]int{},
	}
	w.machine = fsm.New(fsm.Config{Group: 1}, w.bodies)
	net.mu.Lock()
	for _, node := range net.order {
		node.auto = map[wire.Op]func(r *fakeRequest){wire.OpPing: func(r *fakeRequest) { r.reply(nil) }}
		for _, op := range []wire.Op{
			wire.OpOpenSession, wire.OpCloseSession, wire.OpPublish, wire.OpSeal, wire.OpAttach, wire.OpLeave, wire.OpSettle,
			wire.OpQueueCreate, wire.OpOutcome, wire.OpQueueList, wire.OpAckPublish, wire.OpReceive, wire.OpRelease,
		} {
			node.auto[op] = func(r *fakeRequest) { w.jobs <- r }
		}
	}
	net.mu.Unlock()
	w.lead(0)
	w.mu.Lock()
	w.apply(fsm.KindRaise, fsm.RaisePayload(fsm.MachineVersion))
	w.mu.Unlock()
	w.wg.Go(w.serve)
	w.wg.Go(w.tick)
	return w
}

func (w *world) close() {
	close(w.stop)
	w.wg.Wait()
}

// lead makes a node the leader: every consumer is detached. Who led and who leads
// tell their own clients; the clients of others may hear of it late.
func (w *world) lead(node int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.term++
	old := w.leader
	w.leader = w.net.order[node]
	var nonce fsm.Nonce
	w.rng.Read(nonce[:])
	clear(w.consumers)
	w.apply(fsm.KindTerm, fsm.TermPayload(w.leader.name, nonce, fakeIncarnation))
	all := w.rng.Intn(4) > 0
	w.net.lead(w.term, w.leader.name, false)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	for _, n := range w.net.order {
		for c := range n.conns {
			if all || n == old || n == w.leader {
				c.push(wire.OpTopology, w.net.topology)
			}
		}
	}
}

func (w *world) now() fsm.Time { return fsm.Time(time.Since(w.started)) }

// apply runs one command and sends what it hands out.
func (w *world) apply(kind fsm.Kind, payload []byte) fsm.Result {
	var first fsm.Result
	for more := true; more; {
		var commands fsm.Commands
		if kind != 0 {
			commands.Add(kind, payload)
		}
		w.index++
		eff, err := w.machine.Apply(w.index, fsm.NewEntry(w.index, w.now(), time.Now().UnixNano(), &commands))
		if err != nil {
			w.t.Fatalf("apply: %v", err)
		}
		if kind != 0 {
			first, kind = eff.Results[0], 0
		}
		for _, d := range eff.Deliveries {
			at, ok := w.consumers[d.Consumer]
			if !ok || at.n != d.N {
				continue
			}
			published, body, ok := w.bodies.Get(d.Queue, d.Lane, d.Offset)
			if !ok {
				w.t.Fatalf("no body for %+v", d)
			}
			at.conn.push(wire.OpDeliver, wire.Deliver{Consumer: wire.ConsumerID(d.Consumer), N: d.N, Deliveries: []wire.Delivery{{
				Number: d.Number, Queue: d.Queue, Lane: d.Lane, Offset: d.Offset, Attempt: d.Attempt,
				Remaining: time.Duration(d.Deadline - eff.Now), PublishedAt: published, Message: body,
			}}})
		}
		for _, l := range eff.Lost {
			if at, ok := w.consumers[l.Consumer]; ok && at.n == l.N {
				m := wire.Lost{Consumer: wire.ConsumerID(l.Consumer), N: l.N, Gone: l.Gone, Lost: states(l.Lost)}
				at.conn.push(wire.OpLost, m)
			}
		}
		more = eff.More
	}
	return first
}

func states(in []fsm.DeliveryState) []wire.DeliveryState {
	var out []wire.DeliveryState
	for _, s := range in {
		out = append(out, wire.DeliveryState{From: s.From, To: s.To, State: wire.LeaseState(s.State)})
	}
	return out
}

func results(in []fsm.PublishResult) []wire.PublishResult {
	var out []wire.PublishResult
	for _, r := range in {
		out = append(out, result(r))
	}
	return out
}

func result(r fsm.PublishResult) wire.PublishResult {
	out := wire.PublishResult{
		Sequence: r.Sequence, Status: wire.Status(r.Status), Duplicate: r.Duplicate,
		Queue: r.Queue, Lane: r.Lane, Offset: r.Offset, Count: r.Count,
	}
	for _, p := range r.Outputs {
		out.Outputs = append(out.Outputs, wire.Position(p))
	}
	return out
}

func (w *world) tick() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-w.stop:
			return
		}
		w.mu.Lock()
		// A connection that has ended detaches its consumer.
		for id, at := range w.consumers {
			select {
			case <-at.conn.end:
				delete(w.consumers, id)
				w.apply(fsm.KindDetach, fsm.DetachPayload(id, at.n))
			default:
			}
		}
		w.apply(0, nil)
		w.mu.Unlock()
	}
}

func (w *world) serve() {
	for {
		select {
		case r := <-w.jobs:
			w.request(r)
		case <-w.stop:
			return
		}
	}
}

func (w *world) isCalm() bool {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	return w.calm
}

func (w *world) settleDown() {
	w.net.mu.Lock()
	w.calm = true
	w.net.mu.Unlock()
}

// request decides what goes wrong with r, if anything.
func (w *world) request(r *fakeRequest) {
	calm := w.isCalm()
	w.mu.Lock()
	fate, wait := w.rng.Intn(100), time.Duration(w.rng.Intn(int(3*time.Millisecond)))
	late := time.Duration(w.rng.Intn(int(8 * time.Second)))
	w.mu.Unlock()
	time.Sleep(wait)
	if err := fsm.Check(fsm.Kind(r.op), r.payload, fsm.DefaultLimits()); err != nil && r.op < 48 {
		w.t.Errorf("%v: %v", r.op, err)
		r.fail(wire.CodeMalformed, "")
		return
	}
	if calm {
		fate = 100
	}
	switch {
	case fate < 2: // the request is lost
		r.conn.cut()
		return
	case fate < 4: // it is late: the connection goes, the copy comes some time
		r.conn.cut()
		w.wg.Go(func() {
			select {
			case <-time.After(late):
			case <-w.stop:
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.do(r, false)
		})
		return
	case fate < 6:
		r.fail(wire.CodeOverloaded, "")
		return
	case fate < 8: // unknown, and it happened
		w.answer(r, false)
		r.fail(wire.CodeOutcomeUnknown, "")
		return
	case fate < 10: // the reply is lost
		w.answer(r, false)
		r.conn.cut()
		return
	}
	w.answer(r, true)
}

// answer does what r asks for, if its node leads.
func (w *world) answer(r *fakeRequest, reply bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.conn.node != w.leader {
		r.fail(wire.CodeNotLeader, w.leader.address)
		return
	}
	w.do(r, reply)
}

func (w *world) do(r *fakeRequest, reply bool) {
	var m appender
	switch r.op {
	case wire.OpOutcome:
		o := decoded(r, wire.DecodeOutcome)
		res, epoch := w.machine.Outcome(o.Incarnation, o.Session, o.Sequence)
		m = wire.OutcomeReply{Result: result(res), Epoch: epoch}
	case wire.OpQueueList:
		m = wire.QueuesReply{}
	case wire.OpAttach:
		w.attach(r, reply)
		return
	case wire.OpReceive:
		w.receive(r, reply)
		return
	default:
		res := w.apply(fsm.Kind(r.op), r.payload)
		m = w.replyTo(r, res)
	}
	if reply {
		r.reply(m)
	}
}

// attach applies an attach; its reply goes out before the deliveries that the same
// entry makes.
func (w *world) attach(r *fakeRequest, reply bool) {
	a := decoded(r, wire.DecodeAttach)
	id := fsm.ConsumerID(a.Consumer)
	held := &fakeConn{node: r.conn.node, out: make(chan []byte, cap(r.conn.out)), end: r.conn.end}
	before, had := w.consumers[id]
	w.consumers[id] = place{held, a.N}
	res := w.apply(fsm.KindAttach, r.payload)
	if reply {
		r.reply(wire.Attached{
			Status: wire.Status(res.Status), QueueNumber: res.Attach.Queue, LeaseTime: res.Attach.LeaseTime,
			Next: res.Attach.Next, States: states(res.Attach.States),
		})
	}
	for len(held.out) > 0 {
		b := <-held.out
		select {
		case r.conn.out <- b:
		case <-r.conn.end:
		}
	}
	switch {
	case res.Status == fsm.StatusOK:
		w.consumers[id] = place{r.conn, a.N}
	case had:
		w.consumers[id] = before // a late copy has no effect
	default:
		delete(w.consumers, id)
	}
}

// receive does not wait. Of an answer that is lost the first deliveries may have got
// through.
func (w *world) receive(r *fakeRequest, reply bool) {
	m := decoded(r, wire.DecodeReceive)
	res := w.apply(fsm.KindReceive, r.payload)
	for _, d := range res.Receive.Deliveries {
		if !reply && w.rng.Intn(4) == 0 {
			break
		}
		published, body, ok := w.bodies.Get(d.Queue, d.Lane, d.Offset)
		if !ok {
			w.t.Errorf("no body for %+v", d)
		}
		r.conn.push(wire.OpDeliver, wire.Deliver{Consumer: m.Consumer, Deliveries: []wire.Delivery{{
			Number: d.Number, Queue: d.Queue, Lane: d.Lane, Offset: d.Offset, Attempt: d.Attempt,
			Remaining: time.Duration(d.Deadline - w.now()), PublishedAt: published, Message: body,
		}}})
	}
	if reply {
		r.reply(received(res))
	}
}

func received(res fsm.Result) wire.Received {
	return wire.Received{Status: wire.Status(res.Status), QueueNumber: res.Receive.Queue, LeaseTime: res.Receive.LeaseTime, Next: res.Receive.Next}
}

func (w *world) replyTo(r *fakeRequest, res fsm.Result) appender {
	switch r.op {
	case wire.OpOpenSession:
		s := res.Session
		return wire.SessionOpened{
			Status:  wire.Status(res.Status),
			Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: s.Number},
			Epoch:   s.Epoch, Floor: s.Floor, Next: s.Next, Expiry: s.Expiry,
		}
	case wire.OpPublish:
		f := decoded(r, wire.DecodePublishFrame)
		for i, p := range res.Publish {
			if p.Status == fsm.StatusOK && !p.Duplicate {
				for _, m := range f.Publishes[i].Messages {
					w.stored = append(w.stored, string(m.Body))
					w.offsets[string(m.Body)]++
				}
			}
		}
		return wire.PublishReply{Results: results(res.Publish)}
	case wire.OpAckPublish:
		if p := res.Publish[0]; p.Status == fsm.StatusOK && !p.Duplicate {
			for _, out := range decoded(r, wire.DecodeAckPublish).Outputs {
				for _, m := range out.Messages {
					w.offsets[string(m.Body)]++
				}
			}
		}
		return wire.PublishReply{Results: results(res.Publish)}
	case wire.OpSeal:
		return wire.SealReply{Status: wire.Status(res.Status), Outcomes: results(res.Publish)}
	case wire.OpSettle:
		return wire.SettleReply{Status: wire.Status(res.Status), Results: states(res.Settle)}
	case wire.OpRelease:
		return received(res)
	case wire.OpQueueCreate:
		return wire.QueueReply{Status: wire.Status(res.Status), Info: wire.QueueInfo{Number: res.Queue.Number, Name: res.Queue.Name}}
	default:
		return wire.StatusReply{Status: wire.Status(res.Status)}
	}
}
