package main

import (
	"encoding/json"
	"testing"

	"onceq/cmd/onceq/internal/exit"
)

func TestReceive_TakesWhatIsThereAndAcks(t *testing.T) {
	needCluster(t)
	const q = "pulled"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	if o := onceq(t, "", "receive", q).want(t, exit.OK); o.out != "" {
		t.Fatalf("an empty queue gave %q", o.out)
	}
	onceq(t, "1\n2\n3\n4\n", "pub", q, "-l").want(t, exit.OK)
	if o := onceq(t, "", "receive", q, "-n", "3").want(t, exit.OK); o.out != "1\n2\n3\n" {
		t.Fatalf("received %q", o.out)
	}
	if row := queueShow(t, q); row.Ready != 1 || row.Acked != 3 || row.Leased != 0 {
		t.Fatalf("%+v", row)
	}
	// Without an ack it comes again.
	if o := onceq(t, "", "receive", q, "--no-ack", "-f", `%a %b\n`).want(t, exit.OK); o.out != "1 4\n" {
		t.Fatalf("received %q", o.out)
	}
	o := onceq(t, "", "receive", q, "-n", "10", "--wait", "30s", "-o", "json").want(t, exit.OK)
	var got []struct {
		Body    string `json:"body"`
		Attempt int    `json:"attempt"`
	}
	if err := json.Unmarshal([]byte(o.out), &got); err != nil || len(got) != 1 || got[0].Body != "4" || got[0].Attempt != 2 {
		t.Fatalf("%v: %s", err, o.out)
	}
	if o := onceq(t, "", "receive", q, "-o", "json").want(t, exit.OK); o.out != "[]\n" {
		t.Fatalf("an empty queue gave %q", o.out)
	}
	onceq(t, "", "receive", "no-such-queue").want(t, exit.NotFound, "no-such-queue")
	onceq(t, "", "receive", q, "-n", "0").want(t, exit.Usage, "-n 0")
	onceq(t, "", "receive", q, "--wait", "-1s").want(t, exit.Usage, "--wait")
}

// A receive that waits is a consumer that listings show as what it is, once it has
// something.
func TestReceive_WaitsForAPublish(t *testing.T) {
	needCluster(t)
	const q = "awaited"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	p, err := start(needBinary(t), "receive", q, "--wait", "50s", "--label", "nightly")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	onceq(t, "", "pub", q, "hello").want(t, exit.OK)
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	eventually(t, "it is acked", func() bool { return queueShow(t, q).Acked == 1 })
	onceq(t, "", "queue", "consumers", q).want(t, exit.OK, "nightly", "receives")
}
