package workload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
)

// stalled is the workload with clients that have no process, and what they were told.
func stalled(names ...string) (s *stalling, all []*apart, told *bytes.Buffer) {
	told = &bytes.Buffer{}
	s = &stalling{w: &World{H: history.NewWriter(told)}, changed: make(chan struct{}, 1), messages: map[string]*holders{}}
	for _, n := range names {
		c := &child[history.Event]{said: make(chan history.Event, 100), lines: make(chan string, 100)}
		all = append(all, &apart{s: s, name: n, child: c, heard: make(chan struct{})})
	}
	s.consumers = all
	return s, all, told
}

func (a *apart) wasTold() (lines []string) {
	for len(a.child.lines) > 0 {
		lines = append(lines, <-a.child.lines)
	}
	return lines
}

func TestStalling_WhoHasAnOlderAttemptIsToldOnce(t *testing.T) {
	t.Parallel()
	s, all, _ := stalled("c1", "c2", "c3")
	c1, c2, c3 := all[0], all[1], all[2]
	s.handed(c1, "a", 1)
	s.handed(c2, "a", 2)
	s.handed(c3, "a", 3)
	s.handed(c1, "b", 1)
	for _, c := range []struct {
		a    *apart
		want []string
	}{{c1, []string{"overtaken a 1"}}, {c2, []string{"overtaken a 2"}}, {c3, nil}} {
		if got := c.a.wasTold(); !slices.Equal(got, c.want) {
			t.Errorf("%s was told %q, want %q", c.a.name, got, c.want)
		}
	}
	// One that was stopped says late what it had been handed.
	s.settled(c3, "a", 3)
	s.handed(c2, "a", 1)
	if got := c2.wasTold(); !slices.Equal(got, []string{"overtaken a 1"}) {
		t.Errorf("who says late that it has attempt 1 was told %q", got)
	}
	for _, n := range []int{1, 2} {
		s.settled(c1, "a", n)
		s.settled(c2, "a", n)
	}
	s.settled(c1, "b", 1)
	if m := s.messages["b"]; m != nil || len(s.messages["a"].who) > 0 {
		t.Errorf("what is settled is still held: %+v", s.messages)
	}
}

func TestStalling_ProvenWhenAllHaveDoneSomethingSinceTheyWentOn(t *testing.T) {
	t.Parallel()
	s, all, _ := stalled("c1", "c2")
	c1, c2 := all[0], all[1]
	deliver := func(a *apart, id string, attempt int, at int64) {
		a.note(history.Event{F: history.Deliver, Type: history.OK, ID: id, Attempt: attempt, T1: at})
	}
	expect := func(want bool, when string) {
		t.Helper()
		if got := s.proven(); got != want {
			t.Fatalf("%s: proven is %v", when, got)
		}
	}
	deliver(c1, "a", 1, 5)
	expect(false, "one has done nothing")
	deliver(c2, "b", 1, 5)
	expect(true, "both have")
	c1.woken = 10
	expect(false, "one was stopped since")
	deliver(c1, "c", 1, 11)
	expect(true, "it goes on")
	deliver(c2, "a", 2, 12)
	expect(false, "a handler has not heard that its lease is over")
	told := history.Event{F: history.Told, Type: history.Invoke, ID: "a", Attempt: 1}
	c1.note(told)
	c1.note(history.Event{F: history.Ack, Type: history.Invoke, ID: "a", Attempt: 1})
	expect(false, "it waits for it")
	told.Type = history.OK
	c1.note(told)
	expect(true, "it has heard it")
	deliver(c1, "b", 2, 13)
	c2.over = true
	expect(true, "who has ended says nothing more")
}

func TestListen_LinesOfAClientGetNumbersOfTheRun(t *testing.T) {
	t.Parallel()
	s, all, told := stalled("p1")
	s.w.H.Add(history.Event{F: history.Run, Of: -1})
	for _, e := range []history.Event{
		{I: 0, F: history.Publish, ID: "a", Type: history.Invoke, T0: 3, Of: -1},
		{I: 1, F: history.Publish, ID: "b", Type: history.Invoke, T0: 4, Of: -1},
		{I: 2, F: history.Publish, ID: "a", Type: history.OK, T0: 3, T1: 7, Of: 0},
	} {
		all[0].child.said <- e
	}
	close(all[0].child.said)
	all[0].listen()
	if err := s.w.H.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := history.Read(told)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d lines, %v", len(got), err)
	}
	if done := got[3]; done.Of != got[1].I || got[1].ID != "a" || done.T0 != 3 || done.T1 != 7 || done.Type != history.OK {
		t.Errorf("%+v completes line %d", done, got[1].I)
	}
	if n := s.w.Count.Published.Load(); n != 1 {
		t.Errorf("%d publishes are counted", n)
	}
}

func TestStop_TheProcessStandsStillUntilItGoesOn(t *testing.T) {
	t.Parallel()
	s, all, told := stalled("c1")
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	if standsStill(cmd.Process.Pid) {
		t.Fatal("it stands still before it is stopped")
	}
	all[0].child.cmd = cmd
	ctx, goOn := context.WithTimeout(t.Context(), time.Minute)
	defer goOn()
	seen := make(chan bool, 1)
	go func() {
		defer goOn()
		for ctx.Err() == nil && !standsStill(cmd.Process.Pid) {
			pause(ctx, time.Millisecond)
		}
		seen <- ctx.Err() == nil
	}()
	all[0].stop(ctx, time.Hour, false)
	if !<-seen {
		t.Fatal("it does not stand still")
	}
	if _, err := in.Write([]byte("awake\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "awake\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	if err := s.w.H.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := history.Read(told)
	if err != nil || len(got) != 1 || got[0].F != history.Stopped || got[0].Proc != "c1" || !got[0].Seen || got[0].T1 <= got[0].T0 || all[0].woken != got[0].T1 {
		t.Errorf("the history has %+v, %v; it went on at %d", got, err, all[0].woken)
	}
}

// The clocks of two processes must agree, or nothing that a client says could be
// compared with what others say.
func TestStartOfRun_AgreesWithTheClockOfTheMachine(t *testing.T) {
	t.Parallel()
	first := time.Now()
	now, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	const ago = 5 * time.Second
	before := time.Now()
	start, err := startOfRun(now - ago)
	if err != nil {
		t.Fatal(err)
	}
	// The clock of the machine was read after first and before "before".
	if lasted := before.Sub(start); lasted < ago || lasted > ago+time.Since(first) {
		t.Errorf("a run that began %v ago began %v ago", ago, lasted)
	}
}

func TestRelay_HangUp_EndsWhatIsJoinedAtBothEndsAndLetsOthersCome(t *testing.T) {
	t.Parallel()
	node, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	address := node.Addr().String()
	w := &World{Addrs: []string{address}, Dial: func(string) raw.Dialer { return (&net.Dialer{}).DialContext }}
	r, err := newRelay(w, "c1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	join := func() (client, server net.Conn) {
		t.Helper()
		client, err := dialVia(r.via())(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if server, err = node.Accept(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte{7}); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); err != nil { // so it is joined
			t.Fatal(err)
		}
		return client, server
	}
	for range 2 {
		client, server := join()
		r.hangUp()
		for name, c := range map[string]net.Conn{"client": client, "node": server} {
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the end of its connection shows to the %s as %v", name, err)
			}
			c.Close()
		}
	}
}

func TestStallLong_ALeaseOutlastsEveryStopAndAThirdOfItEveryBound(t *testing.T) {
	t.Parallel()
	for _, l := range append(append([]length{longStops.last}, longStops.consumers...), longStops.producers...) {
		if l.most >= longStops.lease/3 || l.most < l.least || proofMost+endMost >= longStops.lease/3 {
			t.Errorf("%+v, under a lease of %v", l, longStops.lease)
		}
	}
}
