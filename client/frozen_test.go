package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"onceq/transport/wire"
)

// A leader that is frozen sends no reset, and its kernel still takes
// connections. The next leader gives a consumer the grace time to come back.
func TestConsume_LeaderIsFrozen_AttachesElsewhereWellWithinTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		n1.freeze()
		frozen := time.Now()
		n.lead(2, "n2", false)
		r = n2.expect(wire.OpAttach)
		if took := time.Since(frozen); took > graceTime/2 {
			t.Fatalf("attached after %v of virtual time, the grace is %v", took, graceTime)
		}
		attached(r, 2, state(1, 1, wire.LeaseHeld))
		k.end <- nil
		n2.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n2)
	}, "n1", "n2", "n3")
}

// isFoundAtOnce makes a node lead, which tells so, and wants f published there.
func isFoundAtOnce(t *testing.T, n *fakeNet, next *fakeNode, f *Future) {
	t.Helper()
	began := time.Now()
	n.lead(2, next.name, true)
	next.expect(wire.OpPublish).results(wire.StatusOK)
	published(t, f)
	if took := time.Since(began); took >= dialStagger {
		t.Fatalf("found %v of virtual time after it said that it leads", took)
	}
}

// A node may begin to lead right after it has said that it does not, while the
// client waits for another that hangs. It tells so once.
func TestLink_ElectedWhileAnotherNodeHangs_IsFoundAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2, n3 := n.order[0], n.order[1], n.order[2]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		n3.freeze()
		n1.setDown(syscall.ECONNREFUSED)
		n1.cut()
		f = p.PublishAsync(t.Context(), body("b"))
		time.Sleep(3 * dialStagger) // the second has answered, and the one that hangs was asked
		isFoundAtOnce(t, n, n2, f)
	}, "n1", "n2", "n3")
}

// A leader that stands still is followed by another before its connection is given up
// for silence. Who has asked around by then hears of it from those who elected it.
func TestLink_LeaderIsFrozen_TheOthersTellWhoIsNext(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		n1.freeze()
		f = p.PublishAsync(t.Context(), body("b"))
		time.Sleep((waitedTicksQuiet+1)*listenInterval + listenInterval/10) // sooner than the next ping that is sent in any case
		isFoundAtOnce(t, n, n2, f)
	}, "n1", "n2", "n3")
}

func TestLink_LeaderIsHeardAgain_ForgetsTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pong := n1.auto[wire.OpPing]
		n1.manual(wire.OpPing)
		time.Sleep(2*pingInterval + pingInterval/10)
		if n2.connections() == 0 {
			t.Fatal("nobody asks the others")
		}
		n1.answer(wire.OpPing, pong)
		time.Sleep(2 * pingInterval)
		if k := n2.connections(); k != 0 {
			t.Fatalf("%d connections to another node are left", k)
		}
		if now, err := c.produce.ready(t.Context()); err != nil || now != cn {
			t.Fatalf("another connection to the leader, %v", err)
		}
	}, "n1", "n2", "n3")
}

// A leader whose disk is slow answers pings: nobody is asked for another.
func TestLink_LeaderIsSlow_NobodyElseIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		p := producer(t, c)
		// Whatever was silent before: an idle connection is, but for its pings.
		for idle := range int(pingInterval / listenInterval) {
			time.Sleep(time.Duration(idle)*listenInterval + listenInterval/2)
			f := p.PublishAsync(t.Context(), body("a"))
			r := n1.expect(wire.OpPublish)
			for range 20 {
				time.Sleep(listenInterval)
				if n2.connections() > 0 {
					t.Fatalf("another node is asked, %d intervals after the last publish", idle)
				}
			}
			r.results(wire.StatusOK)
			published(t, f)
		}
	}, "n1", "n2", "n3")
}

// There may be a thousand idle connections.
func TestLink_Idle_PingsOnceAnInterval(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		if _, err := c.produce.ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		var pings atomic.Int32
		pong := n1.auto[wire.OpPing]
		n1.answer(wire.OpPing, func(r *fakeRequest) {
			pings.Add(1)
			pong(r)
		})
		const intervals = 20
		time.Sleep(intervals*pingInterval + listenInterval/2)
		conns := int32(n1.connections())
		if k := pings.Load(); k > intervals*conns || k < (intervals-1)*conns {
			t.Errorf("%d pings on %d connections in %d intervals", k, conns, intervals)
		}
	}, "n1", "n2", "n3")
}

// What came in while the process was stopped is read when it goes on, and its lease may
// be over: the cluster is asked before a handler begins.
func TestConsume_TheProcessWasStopped_AsksBeforeItHandlesWhatCameInMeanwhile(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(cn *conn){
		"the reader goes on first":   stopNow,
		"the listener goes on first": func(cn *conn) { cn.stood.Add(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				e := eat(t, c)
				r := n1.expect(wire.OpAttach)
				attached(r, 1)
				cn, err := c.consume.ready(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				stop(cn)
				r.deliver(1, "a", "b")
				n1.expect(wire.OpSettle).states(state(1, 1, wire.LeaseExpired), state(2, 2, wire.LeaseHeld))
				k := e.next("b") // and a is never handled
				k.end <- nil
				n1.expect(wire.OpSettle).allSettled()
				e.cancel()
				e.left(n1)
			}, "n1")
		})
	}
}

// A process that was stopped asks when it has read what came in meanwhile, and trusts what
// comes then.
func TestConn_TheProcessWasStopped_TrustsWhatComesBehindAPing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if cn.mayBeOld(time.Now()) {
			t.Error("it was not stopped")
		}
		pong := n1.auto[wire.OpPing]
		n1.manual(wire.OpPing)
		stopNow(cn) // twice, and the first ping is answered only then
		time.Sleep(listenInterval)
		first := n1.expect(wire.OpPing)
		stopNow(cn)
		time.Sleep(listenInterval)
		pong(first)
		synctest.Wait()
		if !cn.mayBeOld(time.Now()) {
			t.Error("it trusts what came in while it was stopped once more")
		}
		n1.answer(wire.OpPing, pong)
		pong(n1.expect(wire.OpPing))
		synctest.Wait()
		time.Sleep(listenInterval)
		if cn.mayBeOld(time.Now()) {
			t.Error("it trusts nothing any more")
		}
	}, "n1")
}

// stopNow makes the process look as if it had been stopped until just now.
func stopNow(cn *conn) { cn.ticked.Add(-int64(stoodLeast)) }

// What was here before the process was stopped is in doubt as well: whoever was silent for
// long may have been given up, however long its leases are.
func TestConsume_TheProcessWasStopped_AsksBeforeItHandlesWhatItHad(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stopNow(cn)
		k.end <- nil
		asked := 0
		for asked < 2 { // the ack of a, and the question about b and c
			r := n1.expect(wire.OpSettle)
			if asked++; r.settle().Items[0].Verb == wire.VerbExtend {
				r.states(state(2, 2, wire.LeaseGone), state(3, 3, wire.LeaseHeld))
			} else {
				r.allSettled()
			}
		}
		k = e.next("c") // and b is never handled
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	}, "n1")
}

// The queue's lease time was raised since the consumer attached. Asking about what is in
// doubt gives it the time that is known here, and that is how long it has from then on.
func TestConsume_AsksAboutALongerLease_KeepsAliveWhatIsLeft(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		const known = fakeLease / 10
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		r.reply(wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: known, Next: 1})
		r.deliver(1, "a", "b")
		k := e.next("a")
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stopNow(cn)
		k.end <- nil
		for asked := false; !asked; {
			s := n1.expect(wire.OpSettle)
			it := s.settle().Items[0]
			if asked = it.Verb == wire.VerbExtend; asked && it.Time != known {
				t.Fatalf("asks with %v", it.Time)
			}
			s.allSettled()
		}
		k = e.next("b")
		began := time.Now()
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items[0]; it.Verb != wire.VerbExtend || time.Since(began) >= known {
			t.Fatalf("%v after %v: its lease has ended", it.Verb, time.Since(began))
		}
		s.allSettled()
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	}, "n1")
}

// None overtakes a message that is in doubt.
func TestConsume_TheProcessWasStopped_HandlesInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cn.stood.Add(1)
		r.deliver(1, "a", "b")
		synctest.Wait()
		cn.stood.Add(-1) // the ping is answered
		r.deliver(3, "c")
		synctest.Wait()
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		n1.expect(wire.OpSettle).allSettled()
		for _, body := range []string{"a", "b", "c"} {
			k := e.next(body)
			k.end <- nil
		}
		e.cancel()
		e.left(n1)
	}, "n1")
}

// A question without an answer is asked again soon, however long the leases are.
func TestConsume_InDoubt_RefusedForNow_AsksAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		r.reply(wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: 12 * time.Hour, Next: 1})
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stopNow(cn)
		r.deliver(1, "a")
		at := time.Now()
		for range 4 {
			n1.expect(wire.OpSettle).fail(wire.CodeOverloaded, "")
		}
		n1.expect(wire.OpSettle).allSettled()
		if d := time.Since(at); d > 10*time.Second {
			t.Errorf("asked again after %v", d)
		}
		k := e.next("a")
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	}, "n1")
}

// Of a connection that ended while the process was stopped nobody knows when the server
// was heard last: what is read then came in long ago.
func TestConsume_TheProcessWasStoppedAndIsCutOff_HandlesNothingUntilItIsBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		r.reply(wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: 5 * time.Minute, Next: 1})
		r.deliver(1, "a", "b", "c")
		n1.expect(wire.OpSettle).allSettled() // less is left of their leases than a third
		k := e.next("a")
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cn.ticked.Add(-int64(30 * time.Second))
		r.conn.push(wire.OpTopology, n.topology) // what had come in
		synctest.Wait()
		n1.setDown(context.DeadlineExceeded) // and nobody is reached for a moment
		n1.cut()
		synctest.Wait()
		k.end <- nil
		time.Sleep(time.Second)
		select {
		case k := <-e.calls:
			t.Fatalf("%q is handled: its lease ended 20 s after the stop at the latest", k.d.Body())
		default:
		}
		n1.setDown(nil)
		r = n1.expect(wire.OpAttach)
		r.reply(wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: 5 * time.Minute, Next: 4,
			States: []wire.DeliveryState{state(1, 2, wire.LeaseGone), state(3, 3, wire.LeaseHeld)}})
		k = e.next("c")
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	}, "n1")
}

// A machine that was suspended has a monotonic clock that stood still as well.
func TestConn_TheMachineWasSuspended_MayBeOld(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n.order[0].manual(wire.OpPing)
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cn.wall.Add(-int64(time.Hour))
		if !cn.mayBeOld(time.Now()) {
			t.Error("the wall clock has gone on by an hour, and nothing is old")
		}
		time.Sleep(listenInterval)
		if !cn.mayBeOld(time.Now()) {
			t.Error("nothing is old any more, and nobody has answered")
		}
	}, "n1")
}

// suspend makes the machine look as if it had been suspended since a moment: the wall clock
// has gone on since, and the monotonic clock has not.
func suspend(since *time.Time, d time.Duration) {
	mono, wall := time.Since(*since), time.Since(since.Round(0))
	// The first word of a time with both holds the seconds on the wall, above 30 bits.
	*(*uint64)(unsafe.Pointer(since)) -= uint64(d/time.Second) << 30
	if m, w := time.Since(*since), time.Since(since.Round(0)); m-mono > time.Minute || w-wall < d {
		panic("package time keeps the two clocks in another way now")
	}
}

// A machine that is suspended while it has no connection is told by the wall clock alone:
// nobody ticks, and by the other clock the grace time is not over.
func TestConsume_SuspendedWithoutAConnection_DoubtsWhatItHas(t *testing.T) {
	t.Parallel()
	s, now := &consumer{}, time.Now() // not in a bubble, which has one clock
	d := &Delivery{deadline: now.Add(graceTime)}
	if s.doubts(d, now) {
		t.Error("it was not suspended")
	}
	suspend(&d.deadline, time.Hour)
	if !s.doubts(d, now) {
		t.Error("its lease ended most of an hour ago")
	}
}

// A wall clock that is set forward costs a question, and the answer ends the doubt, however
// long the lease was.
func TestConsume_TheWallClockIsSetForward_AsksOnce(t *testing.T) {
	t.Parallel()
	now := time.Now() // not in a bubble, which has one clock
	d := &Delivery{number: 1, deadline: now.Add(time.Hour)}
	s := &consumer{life: &life{open: map[uint64]*Delivery{1: d}, low: 1, next: 2, leaseTime: fakeLease}}
	s.more = sync.NewCond(&s.mu)
	suspend(&d.deadline, 2*time.Hour)
	if !s.doubts(d, now) {
		t.Error("by the wall clock its lease ended an hour ago")
	}
	s.extended([]wire.DeliveryState{state(1, 1, wire.LeaseHeld)}, []wire.Range{{From: 1, To: 1}}, now)
	if s.doubts(d, now) {
		t.Error("the cluster has said that it is held, and it is in doubt")
	}
}

// When a server was heard last is told by both clocks, also of a connection that has
// outlived a suspended machine.
func TestConn_OutlivesASuspendedMachine_WasHeardAMomentAgo(t *testing.T) {
	t.Parallel()
	nc, _ := net.Pipe()
	cn := &conn{nc: nc, started: time.Now(), ended: make(chan struct{})}
	suspend(&cn.started, time.Hour)
	cn.tick(time.Now())
	cn.heardAt.Store(int64(time.Since(cn.started)))
	cn.fail(errSilent)
	at, known := cn.heardUntil()
	if !known || time.Since(at) > time.Minute || time.Since(at.Round(0)) > time.Minute {
		t.Errorf("heard %v ago, on the wall %v; known: %v", time.Since(at), time.Since(at.Round(0)), known)
	}
}

// What came for a receive while the process was stopped is asked about before it is handed
// over; when all of it is lost the receive goes on.
func TestReceive_TheProcessWasStopped_AsksBeforeItHandsOver(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 2)
		r, _ := n1.asks(1, 1)
		cn, err := c.consume.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stopNow(cn)
		r.pushes(1, "a", "b")
		r.received(wire.StatusOK, 3)
		n1.expect(wire.OpSettle).states(state(1, 2, wire.LeaseExpired))
		r, _ = n1.asks(3, 3)
		stopNow(cn)
		r.pushes(3, "c", "d")
		r.received(wire.StatusOK, 5)
		n1.expect(wire.OpSettle).states(state(3, 3, wire.LeaseExpired), state(4, 4, wire.LeaseHeld))
		ds := p.got("d")
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}, "n1")
}
