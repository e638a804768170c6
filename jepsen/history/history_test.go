package history

import (
	"bytes"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWriter_WhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	w.Add(Event{F: Run, Type: OK, Of: -1, Setup: &Setup{Workload: "queue", Seed: 7, Faults: []string{"kill"}}})
	op := w.Invoke(Event{Proc: "p1", F: Publish, ID: "r-p1-1", Key: "q"})
	op.Seq, op.Dup = 0, true // offset 0 is one like any other
	w.Complete(op, OK)
	w.Add(Event{F: Status, Type: OK, Of: -1, Node: "n1", State: &State{Role: "leader", Applied: 1 << 60, Digest: "ffffffffffffffff"}})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 {
		t.Fatalf("read %d events, wrote 4", len(got))
	}
	if s := got[0].Setup; s == nil || s.Seed != 7 || !reflect.DeepEqual(s.Faults, []string{"kill"}) {
		t.Errorf("the setup is %+v", s)
	}
	if got[1].I != 1 || got[1].Type != Invoke || got[1].ID != "r-p1-1" || got[1].Of != -1 {
		t.Errorf("the invoke is %+v", got[1])
	}
	if done := got[2]; done.Of != 1 || done.T1 < done.T0 || !done.Dup || done.Type != OK {
		t.Errorf("the completion is %+v", done)
	}
	if s := got[3].State; s == nil || s.Applied != 1<<60 || s.Digest != "ffffffffffffffff" {
		t.Errorf("the state is %+v", s)
	}
}

func TestWriterSince_EachLineIsThereAtOnceWithTheTimeOfTheOtherProcess(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	w := NewWriterSince(&buf, time.Now().Add(-time.Hour))
	w.Complete(w.Invoke(Event{F: Ack}), OK)
	got, err := Read(bytes.NewReader(buf.Bytes()))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d lines are there, %v", len(got), err)
	}
	if at := time.Duration(got[1].T0); at < time.Hour || at > time.Hour+time.Minute {
		t.Errorf("the run has lasted for an hour, and the line is of %v", at)
	}
}

func TestRead_ALineThatIsCutOffIsNotThere(t *testing.T) {
	t.Parallel()
	got, err := Read(strings.NewReader("{\"i\":0,\"f\":\"run\"}\n{\"i\":1,\"f\":\"pub"))
	if err != nil || len(got) != 1 {
		t.Errorf("read %v, %v, want one event", got, err)
	}
	if _, err := Read(strings.NewReader("{\"i\":\n{}\n")); err == nil {
		t.Error("a broken line in the middle is read")
	}
}

func TestWriter_NumbersAreUniqueAndInOrder(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				w.Complete(w.Invoke(Event{F: Ack}), OK)
			}
		})
	}
	wg.Wait()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&buf)
	if err != nil || len(got) != 1600 {
		t.Fatalf("read %d events, %v", len(got), err)
	}
	for i, e := range got {
		if e.I != i {
			t.Fatalf("event %d has number %d", i, e.I)
		}
		if e.Type == OK && (got[e.Of].Type != Invoke || got[e.Of].T0 != e.T0) {
			t.Fatalf("%+v completes %+v", e, got[e.Of])
		}
	}
}

func TestParseText_LinesAreWholeOperations(t *testing.T) {
	t.Parallel()
	got, err := ParseText(`
		run lease=2000 faults=kill,pause
		1 2.5 p1 publish a key=q seq=4 dup copies=2  # a comment
		3 - p1 publish b
		4 4 c1 deliver a seq=4 attempt=1`)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Setup.Lease != 2e9 || len(got[0].Setup.Faults) != 2 {
		t.Errorf("setup %+v", got[0].Setup)
	}
	want := []Event{
		{I: 1, Proc: "p1", F: Publish, Type: Invoke, T0: 1e6, Of: -1, ID: "a", Key: "q", Seq: 4, Dup: true, Copies: 2},
		{I: 2, Proc: "p1", F: Publish, Type: OK, T0: 1e6, T1: 25e5, Of: 1, ID: "a", Key: "q", Seq: 4, Dup: true, Copies: 2},
		{I: 3, Proc: "p1", F: Publish, Type: Invoke, T0: 3e6, Of: -1, ID: "b"},
		{I: 4, Proc: "c1", F: Deliver, Type: OK, T0: 4e6, T1: 4e6, Of: -1, ID: "a", Seq: 4, Attempt: 1},
	}
	if !reflect.DeepEqual(got[1:], want) {
		t.Errorf("parsed\n%+v, want\n%+v", got[1:], want)
	}
	for _, bad := range []string{"1 2 p1", "x 2 p1 publish a", "1 2 p1 publish a nonsense", "1 2 p1 publish a color=red"} {
		if _, err := ParseText(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
