package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// instantRaft applies every proposal at once and tells a test of it.
type instantRaft struct {
	p     *proposer
	t     *ticker
	begun time.Time
	next  fsm.Time // the machine's earliest deadline
	more  int      // so many entries leave due work behind
	index uint64

	ticks []time.Duration // since begun, when entries without commands came
	holds []time.Duration // when grace was prolonged
}

func (r *instantRaft) Apply(cmd []byte, _ time.Duration) raft.ApplyFuture {
	number, _ := fsm.EntryProposal(cmd)
	var stamp fsm.Time
	for _, b := range cmd[12:20] {
		stamp = stamp<<8 | fsm.Time(b)
	}
	results := int(cmd[31])
	if results == 0 {
		r.ticks = append(r.ticks, time.Since(r.begun))
	} else if fsm.Kind(cmd[32]) == fsm.KindHoldGrace {
		r.holds = append(r.holds, time.Since(r.begun))
	}
	r.index++
	eff := &fsm.Effects{Proposal: number, Results: make([]fsm.Result, results), Now: stamp, NextTimer: r.next, More: r.more > 0}
	if eff.NextTimer != 0 && eff.NextTimer <= stamp {
		eff.NextTimer = 0
	}
	r.more = max(0, r.more-1)
	r.p.applied(r.index, eff)
	r.t.applied(eff)
	f := &fakeFuture{err: make(chan error, 1)}
	f.err <- nil
	return f
}

// nullConn is a client that takes everything.
type nullConn struct{ _ int } // not of size zero, so that two are different

func (*nullConn) ID() uint64                                       { return 0 }
func (*nullConn) Reply(uint32, wire.Op, []byte)                    {}
func (*nullConn) Error(uint32, wire.ErrorReply)                    {}
func (*nullConn) Push(wire.Op, []byte)                             {}
func (*nullConn) PushLazy(wire.Op, int, func(w *pack.Writer) bool) {}
func (*nullConn) Close(wire.ErrorReply)                            {}

func tickerTest(t *testing.T, f func(g *group, r *instantRaft)) {
	synctest.Test(t, func(t *testing.T) {
		clk := newClock(monotonic())
		g := &group{clock: clk, mono: clk.mono, hub: newHub(nil, clk)}
		g.receives = newReceives(g.hub, clk.mono)
		g.ticker = newTicker(g)
		g.proposer = newProposer(proposerConfig{clock: clk, mono: clk.mono, wall: func() int64 { return 0 },
			ended: make(chan struct{}), refusal: func() *wire.ErrorReply { return &wire.ErrorReply{} }, classify: raftlog.Classify})
		r := &instantRaft{p: g.proposer, t: g.ticker, begun: time.Now()}
		g.proposer.start(r)
		end := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			g.ticker.run(end)
		}()
		begin := func() {
			clk.start(0)
			g.ticker.start(0)
			g.hub.start()
			g.proposer.setPhase(serving)
		}
		begin()
		f(g, r)
		synctest.Wait()
		close(end)
		<-ended
		g.proposer.close()
	})
}

func TestTicker_ADeadlineIsMetExactly(t *testing.T) {
	tickerTest(t, func(g *group, r *instantRaft) {
		r.next = fsm.Time(4300 * time.Millisecond)
		g.ticker.applied(&fsm.Effects{NextTimer: r.next})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 4300 * time.Millisecond}
		if len(r.ticks) != len(want) {
			t.Fatalf("ticks at %v, want %v", r.ticks, want)
		}
		for i := range want {
			if r.ticks[i] != want[i] {
				t.Fatalf("ticks at %v, want %v", r.ticks, want)
			}
		}
	})
}

func TestTicker_WithoutADeadlineNothingIsWritten(t *testing.T) {
	tickerTest(t, func(g *group, r *instantRaft) {
		time.Sleep(time.Hour)
		synctest.Wait()
		if r.index != 0 {
			t.Fatalf("%d entries in an hour in which nothing was due", r.index)
		}
	})
}

func TestTicker_WhatTheBudgetLeftOverGoesOnAtOnce(t *testing.T) {
	tickerTest(t, func(g *group, r *instantRaft) {
		r.more = 5
		g.ticker.applied(&fsm.Effects{More: true})
		synctest.Wait()
		if len(r.ticks) != 6 {
			t.Fatalf("%d ticks, want the 5 that left something and the last", len(r.ticks))
		}
		if last := r.ticks[len(r.ticks)-1]; last != 0 {
			t.Fatalf("the last came after %v", last)
		}
	})
}

// TestTicker_GraceIsHeldWhileConsumersAreOnTheirWay: a storm of reconnects after
// a failover.
func TestTicker_GraceIsHeldWhileConsumersAreOnTheirWay(t *testing.T) {
	tickerTest(t, func(g *group, r *instantRaft) {
		for range 200 {
			g.hub.connected(&nullConn{})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if len(r.holds) != fsm.GraceHoldsMax {
			t.Fatalf("grace was prolonged %d times, at %v, want %d", len(r.holds), r.holds, fsm.GraceHoldsMax)
		}
		before := time.Duration(0)
		for _, at := range r.holds {
			if at-before >= fsm.GraceTime {
				t.Fatalf("grace had ended before it was prolonged: %v", r.holds)
			}
			before = at
		}
	})
}

func TestTicker_GraceIsNotHeldForNobody(t *testing.T) {
	tickerTest(t, func(g *group, r *instantRaft) {
		c := &nullConn{}
		g.hub.connected(c)
		g.hub.asked(c)
		time.Sleep(fsm.GraceTime)
		g.hub.connected(&nullConn{}) // later ones have a grace of their own
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(r.holds) != 0 {
			t.Fatalf("grace was prolonged at %v", r.holds)
		}
	})
}
