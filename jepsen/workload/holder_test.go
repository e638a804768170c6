package workload

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const leaderAddress = "n1:1"

// leading is the way to one node, which leads and acknowledges every settle.
func leading(_ context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		if _, err := io.ReadFull(far, make([]byte, len(wire.Magic))); err != nil {
			return
		}
		frames := wire.NewFrameReader(bufio.NewReader(far), wire.FrameBytesMax)
		for f, err := frames.Next(); err == nil; f, err = frames.Next() {
			w := pack.NewWriter(nil)
			switch f.Op {
			case wire.OpHello:
				wire.Welcome{Version: wire.Version, Cluster: "x", Node: "n1", Topology: wire.Topology{
					Leader: "n1", Nodes: []wire.NodeAddress{{Name: "n1", Address: leaderAddress}},
				}}.Append(w)
			case wire.OpSettle:
				wire.SettleReply{Status: wire.StatusOK, Results: []wire.DeliveryState{{From: 1, To: 1, State: wire.LeaseAcked}}}.Append(w)
			}
			if _, err := far.Write(wire.AppendFrame(nil, f.Op, true, f.Corr, w.Bytes())); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// holding1 is a raw consumer that holds one delivery, number 1, and its own
// connection to the leader.
func holding1(t *testing.T) (s *holder, h *held, told *bytes.Buffer) {
	t.Helper()
	told = &bytes.Buffer{}
	w := &World{H: history.NewWriter(told), Addrs: []string{leaderAddress}, Dial: func(string) raw.Dialer { return leading }}
	s = newHolder(t.Context(), w, "q", "c1", rand.New(rand.NewPCG(1, 1)))
	t.Cleanup(s.peers.close)
	own, err := raw.Dial(t.Context(), leading, leaderAddress, "c1", s.push)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	s.peers.learn(own.Welcome.Topology)
	h = &held{number: 1, id: "m1", gone: make(chan struct{})}
	s.conn, s.at, s.next, s.open[1] = own, leaderAddress, 2, h
	return s, h, told
}

func TestHolder_SettlesOverItsOwnConnectionUnlessItIsToBeAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := holding1(t)
		if c := s.reach(t.Context(), false); c != s.conn {
			t.Error("not over its own")
		}
		if c := s.reach(t.Context(), true); c == nil || c == s.conn {
			t.Errorf("elsewhere is %v", c)
		}
	})
}

func TestHolder_SettlesOverAnotherLineWhenItsOwnHasEnded(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(s *holder){
		"it was cut":         func(s *holder) { s.conn.Close() },
		"another node leads": func(s *holder) { s.at = "n2:1" },
		"it has none":        func(s *holder) { s.conn.Close(); s.conn = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, h, told := holding1(t)
				lose(s)
				giveUp := time.AfterFunc(time.Minute, func() {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.over = true
				})
				defer giveUp.Stop()
				s.settle(h, wire.VerbAck, 0, false, true)
				if len(s.open) != 0 {
					t.Error("it still holds what was acknowledged")
				}
				if err := s.w.H.Flush(); err != nil {
					t.Fatal(err)
				}
				events, err := history.Read(told)
				if err != nil {
					t.Fatal(err)
				}
				acked := func(e history.Event) bool { return e.F == history.Ack && e.Type == history.OK && e.ID == "m1" }
				if !slices.ContainsFunc(events, acked) {
					t.Errorf("no ack was answered: %+v", events)
				}
			})
		})
	}
}
