package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cmd/onceq/internal/exit"
)

func TestPubSub_OneMessage(t *testing.T) {
	needCluster(t)
	q := "one-message"
	onceq(t, "", "pub", q, "hi").want(t, exit.NotFound, "ONCEQ-2010", "onceq queue create "+q)
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	onceq(t, "", "pub", "one-mesage", "hi").want(t, exit.NotFound, `did you mean "one-message"?`)

	if o := onceq(t, "", "pub", q, "first", "--biz-id", "b1", "-H", "a=1").want(t, exit.OK); o.out != q+"/0\n" {
		t.Fatal(o)
	}
	onceq(t, "from stdin\n", "pub", q, "-o", "jsonl").want(t, exit.OK, `"message":"one-message/1"`, `"duplicate":false`)

	if o := onceq(t, "", "sub", q, "-n", "1", "-f", `%i %a %z %h %b\n`).want(t, exit.OK); o.out != q+`/0 1 b1 [["a","1"]] first`+"\n" {
		t.Fatal(o)
	}
	var line struct{ ID, Body string }
	o := onceq(t, "", "sub", q, "--until-empty", "-o", "jsonl").want(t, exit.OK)
	if err := json.Unmarshal([]byte(o.out), &line); err != nil || line.ID != q+"/1" || line.Body != "from stdin\n" {
		t.Fatal(err, o)
	}
	if row := queueShow(t, q); row.Stored != 2 || row.Acked != 2 || row.Ready+row.Leased != 0 {
		t.Fatalf("%+v", row)
	}
}

func TestQueueCommands(t *testing.T) {
	needCluster(t)
	onceq(t, "", "queue", "create", "verbs", "--lease-time", "1m").want(t, exit.OK, "1m0s")
	onceq(t, "", "queue", "create", "verbs", "--lease-time", "1m").want(t, exit.OK) // again: the same
	onceq(t, "", "queue", "create", "verbs", "--lease-time", "2m").want(t, exit.Conflict, "lease time")
	onceq(t, "", "queue", "create", "bad name!").want(t, exit.Usage)
	onceq(t, "", "queue", "ls").want(t, exit.OK, "QUEUE", "verbs")
	onceq(t, "", "queue", "ls", "-o", "jsonl").want(t, exit.OK, `"queue":"verbs"`, `"lease_seconds":60`)
	onceq(t, "a\nb\n", "pub", "verbs", "-l").want(t, exit.OK)

	onceq(t, "", "queue", "purge", "verbs").want(t, exit.Usage, "--yes")
	onceq(t, "", "queue", "purge", "verbs", "--dry-run").want(t, exit.OK, "would remove 2 messages (2 ready")
	if row := queueShow(t, "verbs"); row.Ready != 2 {
		t.Fatalf("a dry run did something: %+v", row)
	}
	onceq(t, "", "queue", "purge", "verbs", "--yes").want(t, exit.OK, "2 messages removed")
	onceq(t, "", "queue", "show", "verbs").want(t, exit.OK, "purged", "2")
	onceq(t, "", "queue", "delete", "verb", "--yes").want(t, exit.NotFound, `did you mean "verbs"?`)
	onceq(t, "", "queue", "delete", "verbs", "-y").want(t, exit.OK, "deleted")
	onceq(t, "", "queue", "show", "verbs").want(t, exit.NotFound)
}

func TestStatusAndMembers(t *testing.T) {
	needCluster(t)
	st := statusOfAll(t)
	if st.Voters != 3 || st.CanLose != 1 {
		t.Fatalf("%+v", st)
	}
	for _, n := range st.Nodes {
		if n.Disk == "" || n.Free == 0 || n.Total < n.Free {
			t.Errorf("%s says of its disk: %q, %d of %d bytes free", n.Node, n.Disk, n.Free, n.Total)
		}
	}
	eventually(t, "the table tells all", func() bool {
		o := onceq(t, "", "status")
		return o.code == exit.OK && strings.Contains(o.out, "3/3 up, can lose 1") && strings.Contains(o.out, "DISK") && strings.Contains(o.out, "% free")
	})
	o := onceq(t, "", "cluster", "members", "-o", "jsonl").want(t, exit.OK)
	if strings.Count(o.out, `"voter":true`) != 3 || strings.Count(o.out, `"leader":true`) != 1 {
		t.Fatal(o)
	}
	onceq(t, "", "cluster", "remove", "n9", "--yes").want(t, exit.NotFound)
	onceq(t, "", "cluster", "remove", "n1").want(t, exit.Usage, "--yes")
	onceq(t, "", "cluster", "transfer", "n9").want(t, exit.NotFound)
	// Raft gives a transfer up after an election time-out, and then it is refused, as it is
	// when the node has become the leader by itself.
	transfer := func(args func(leader string) []string) (o outcome) {
		t.Helper()
		eventually(t, "a transfer is not given up", func() bool {
			o = onceq(t, "", append([]string{"cluster", "transfer"}, args(statusOfAll(t).Leader)...)...)
			return o.code != exit.Conflict
		})
		return o
	}
	to := ""
	o = transfer(func(leader string) []string {
		if to = "n1"; leader == to {
			to = "n2"
		}
		return []string{to}
	})
	o.want(t, exit.OK, to+" leads")
	o = transfer(func(leader string) []string {
		to = leader
		return nil
	})
	o.want(t, exit.OK, "leads")
	eventually(t, "it was handed over", func() bool { return statusOfAll(t).Leader != to })
}

func TestOutcome_OfStoredAndUnheardOf(t *testing.T) {
	needCluster(t)
	onceq(t, "", "queue", "create", "outcomes").want(t, exit.OK)
	var r receiptRow
	// A named session stays, so its sequences can be asked for.
	o := onceq(t, "", "pub", "outcomes", "x", "--session", "outcome-test", "-o", "json").want(t, exit.OK)
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		t.Fatal(err)
	}
	short, incarnation, ok := strings.Cut(r.ID, "@")
	if !ok {
		t.Fatalf("%q is no id for the world outside", r.ID)
	}
	at := strings.LastIndexByte(short, '.') + 1
	never := short[:at] + "500"
	onceq(t, "", "outcome", never).want(t, exit.Unknown, "not stored so far")
	onceq(t, "", "outcome", never, "--seal").want(t, exit.NotFound, "never")
	onceq(t, "", "outcome", never+"@"+incarnation).want(t, exit.NotFound, "never")
	onceq(t, "", "outcome", "s1.999999.1").want(t, exit.Unknown)
}

// lines are n lines of JSON.
func jsonLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"row":%d,"text":"%x"}`+"\n", i, i*2654435761)
	}
	return b.String()
}

// The file has each line once although the leader is killed twice on the way.
func TestPubSubLines_LeaderKilledTwice_EachLineOnce(t *testing.T) {
	needCluster(t)
	const q, n = "lines", 150_000
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	in := jsonLines(n)

	bin := needBinary(t)
	file := filepath.Join(t.TempDir(), "out.jsonl")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*bound)
	defer cancel()
	pub := exec.CommandContext(ctx, bin, "pub", q, "-l")
	pub.Stdin = strings.NewReader(in)
	var pubErr bytes.Buffer
	pub.Stderr = &pubErr
	if err := pub.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first messages are stored", func() bool { return queueShow(t, q).Stored > 0 })
	sub := exec.CommandContext(ctx, bin, "sub", q, "--until-empty")
	sub.Stdout = out
	var subErr bytes.Buffer
	sub.Stderr = &subErr
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		onceq(t, "", "dev", "kill", "leader").want(t, exit.OK, "it was the leader")
		stored := uint64(0)
		eventually(t, "another leader serves", func() bool {
			o := onceq(t, "", "queue", "show", q, "-o", "json")
			var row queueRow
			return o.code == 0 && json.Unmarshal([]byte(o.out), &row) == nil && func() bool { stored = row.Stored; return true }()
		})
		t.Logf("round %d: %d stored when the next leader answered", round, stored)
		needCluster(t) // starts the one that was killed
		eventually(t, "it is back", func() bool { return strings.Contains(onceq(t, "", "status").out, "3/3 up") })
	}
	pubDone := pub.Wait()
	subDone := sub.Wait()
	if pubDone != nil || subDone != nil {
		t.Fatalf("pub: %v %s\nsub: %v %s", pubDone, pubErr.String(), subDone, subErr.String())
	}
	t.Log(strings.TrimSpace(pubErr.String()))
	// sub may have found the queue empty while pub was held up; the rest follows.
	rest := onceq(t, "", "sub", q, "--until-empty").want(t, exit.OK).out
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for l := range strings.Lines(string(got) + rest) {
		seen[l]++
	}
	for l := range strings.Lines(in) {
		if seen[l] != 1 {
			t.Errorf("%d times: %s", seen[l], l)
		}
		delete(seen, l)
	}
	if len(seen) != 0 {
		t.Errorf("%d lines that nobody published", len(seen))
	}
	row := queueShow(t, q)
	if row.Stored != n || row.Acked != n || row.RedeliveredExpired+row.RedeliveredGone+row.RedeliveredNacked != 0 {
		t.Fatalf("%+v", row)
	}
}

// A message is not acked when standard output does not take it.
func TestSub_OutputFails_DoesNotAck(t *testing.T) {
	needCluster(t)
	const q = "full-disk"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	var lines strings.Builder
	const n = 200
	for i := range n {
		fmt.Fprintln(&lines, i)
	}
	onceq(t, lines.String(), "pub", q, "-l").want(t, exit.OK)

	failed := uint64(0)
	check := func(what string, stdout *os.File) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), needBinary(t), "sub", q, "--until-empty")
		cmd.Stdout = stdout
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != exit.Failure || !strings.Contains(errOut.String(), "was not acked") {
			t.Fatalf("%s: exit code %d: %s", what, code, errOut.String())
		}
		eventually(t, "everything is ready again", func() bool { return queueShow(t, q).Ready == n })
		// What was held beside the one that could not be written has not failed: with a
		// delivery limit it would be given up by those who look at the first lines.
		failed++
		if row := queueShow(t, q); row.Acked != 0 || row.RedeliveredNacked != failed {
			t.Fatalf("%s: %+v", what, row)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	check("disk full", full)

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	check("nobody reads", w)

	if o := onceq(t, "", "sub", q, "--until-empty").want(t, exit.OK); o.out != lines.String() {
		t.Fatal(o)
	}
}

// Who reads only the first lines of a listing is told nothing; who may believe that
// a message was not stored is.
func TestOutput_ThatNobodyReads(t *testing.T) {
	needCluster(t)
	const q = "unread"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	for _, c := range []struct {
		args []string
		err  string
	}{
		{[]string{"--help"}, ""},
		{[]string{"pub", "--help"}, ""},
		{[]string{"errors"}, ""},
		{[]string{"queue", "ls"}, ""},
		{[]string{"queue", "ls", "-o", "jsonl"}, ""},
		{[]string{"pub", q, "x"}, "is stored as " + q + "/0"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd := exec.CommandContext(t.Context(), needBinary(t), c.args...)
		cmd.Stdout = w
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		cmd.Run()
		w.Close()
		if code := cmd.ProcessState.ExitCode(); code != exit.Failure || !strings.Contains(errOut.String(), c.err) || c.err == "" && errOut.Len() > 0 {
			t.Errorf("%v: exit code %d: %s", c.args, code, errOut.String())
		}
	}
}

func TestSub_Interrupted_GivesBackWhatItHolds(t *testing.T) {
	needCluster(t)
	const q = "interrupted"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	p, err := start(needBinary(t), "sub", q)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the consumer is attached", func() bool { return queueShow(t, q).Consumers == 1 })
	p.interrupt()
	if code := p.exitCode(t); code != exit.Interrupted {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	eventually(t, "the consumer is gone", func() bool { return queueShow(t, q).Consumers == 0 })
}

// With --empty-for an empty queue is no end as long as producers are at work.
func TestSub_EmptyFor_WaitsForMore(t *testing.T) {
	needCluster(t)
	const q = "empty-for"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	p, err := start(needBinary(t), "sub", q, "--until-empty", "--empty-for", "20s") // two publishes take less
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	eventually(t, "the consumer is attached", func() bool { return queueShow(t, q).Consumers == 1 })
	for _, m := range []string{"1", "2"} {
		onceq(t, "", "pub", q, m).want(t, exit.OK)
		eventually(t, "it is consumed", func() bool { return queueShow(t, q).Ready == 0 })
	}
	if code := p.exitCode(t); code != exit.OK || p.out.String() != "1\n2\n" {
		t.Fatalf("exit code %d, %q: %s", code, p.out.String(), p.text())
	}
	onceq(t, "", "sub", q, "--empty-for", "1s").want(t, exit.Usage, "--until-empty")
}

func TestPub_TooLarge_SaysSo(t *testing.T) {
	needCluster(t)
	const q = "large"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	big := strings.Repeat("x", 2<<20)
	onceq(t, big, "pub", q).want(t, exit.Failure, "ONCEQ-2009")
	onceq(t, strings.Repeat("x", bodyBytesMax+1), "pub", q).want(t, exit.Failure, "ONCEQ-2009", "no cluster takes")
	onceq(t, "ok\n"+big+"\nnot reached?\n", "pub", q, "-l").want(t, exit.Failure, "line 2", "ONCEQ-2009", "1 NOT STORED")
}

func TestPub_QueueFull_IsRetriable(t *testing.T) {
	needCluster(t)
	const q = "small"
	onceq(t, "", "queue", "create", q, "--length-max", "1").want(t, exit.OK)
	onceq(t, "", "pub", q, "1").want(t, exit.OK)
	onceq(t, "", "pub", q, "2", "--timeout", "30s").want(t, exit.Unavailable, "ONCEQ-2008") // it connects in less
}

func TestUnreachable_SaysWhatIsReachable(t *testing.T) {
	needCluster(t)
	onceq(t, "", "pub", "x", "y", "--url", "127.0.0.1:1", "--timeout", "1s").want(t, exit.Unavailable, "ONCEQ-1001", "127.0.0.1:1", `context "dev"`)
}

// Without a majority a publish is neither confirmed nor failed; its outcome is
// found out afterwards.
func TestPub_NoMajority_OutcomeIsFoundOutLater(t *testing.T) {
	needCluster(t)
	const q = "no-majority"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	st := statusOfAll(t)
	var stopped []string
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != st.Leader {
			onceq(t, "", "dev", "pause", n).want(t, exit.OK)
			stopped = append(stopped, n)
		}
	}
	o := onceq(t, "", "pub", q, "hello", "--timeout", "3s")
	for _, n := range stopped {
		onceq(t, "", "dev", "resume", n).want(t, exit.OK)
	}
	eventually(t, "the cluster leads again", func() bool { return onceq(t, "", "status").code == exit.OK })
	switch o.code {
	case exit.Unavailable: // nothing was sent: the leader had stepped down before
		if row := queueShow(t, q); row.Stored != 0 {
			t.Fatalf("called unavailable, and stored: %s %+v", o, row)
		}
	case exit.Unknown:
		at := strings.Index(o.err, "onceq outcome s")
		if at < 0 {
			t.Fatalf("no id to look up: %s", o)
		}
		id := strings.Fields(o.err[at:])[2]
		sealed := onceq(t, "", "outcome", id, "--seal")
		row := queueShow(t, q)
		if stored := sealed.code == exit.OK; sealed.code != exit.OK && sealed.code != exit.NotFound || stored != (row.Stored == 1) {
			t.Fatalf("%s\nand %d stored", sealed, row.Stored)
		}
	default:
		t.Fatal(o)
	}
}
