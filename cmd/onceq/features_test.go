package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

// devURL is where the shared cluster is.
func devURL(t *testing.T) string {
	t.Helper()
	a := &app{&console.Console{Getenv: os.Getenv}}
	to, err := a.target(&globals{})
	if err != nil {
		t.Fatal(err)
	}
	return to.url
}

// failing consumes n messages and gives each up, by a client: `onceq sub` has no
// verb for that.
func failing(t *testing.T, queue string, n int, err error) {
	t.Helper()
	c, derr := client.Dial(t.Context(), devURL(t))
	if derr != nil {
		t.Fatal(derr)
	}
	defer c.Close()
	seen := make(chan struct{}, n)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range n {
			<-seen
		}
		cancel()
	}()
	if cerr := c.Consume(ctx, queue, func(_ context.Context, d *client.Delivery) error {
		seen <- struct{}{}
		return client.DeadLetter(fmt.Errorf("%w: %s", err, d.Body()))
	}, client.WithPrefetch(1)); cerr != nil {
		t.Fatal(cerr)
	}
}

func TestQueueSettings_CreateShowUpdate(t *testing.T) {
	needCluster(t)
	q := "all-settings"
	args := []string{"queue", "create", q, "--lease-time", "1m", "--length-max", "100", "--bytes-max", "1MiB", "--ttl", "1h", "--delivery-limit", "3",
		"--dead-letter", q + ".dead", "--backoff", "2s", "--backoff-max", "1m", "--single-active"}
	onceq(t, "", append(args, "-o", "json")...).want(t, exit.OK, `"bytes_max": 1048576`, `"delivery_limit": 3`, `"ttl_seconds": 3600`, `"backoff_seconds": 2`, `"single_active": true`)
	onceq(t, "", args...).want(t, exit.OK)
	onceq(t, "", "queue", "create", q, "--length-max", "7").want(t, exit.Conflict, "length limit")
	onceq(t, "", "queue", "show", q).want(t, exit.OK, "given up after 3 failures", "go to all-settings.dead", "2s, doubling to 1m0s", "one, the others wait", "1h0m0s")

	onceq(t, "", "queue", "update", q).want(t, exit.Usage, "nothing to change")
	onceq(t, "", "queue", "update", q, "--dead-letter", "", "--backoff", "0s", "--no-single-active", "--ttl", "0s").want(t, exit.OK, "parked here", "revision 2")
	onceq(t, "", "queue", "show", q, "-o", "json").want(t, exit.OK, `"dead_letter": ""`, `"backoff_seconds": 0`, `"single_active": false`, `"ttl_seconds": 0`, `"length_max": 100`)
	onceq(t, "", "queue", "update", q, "--lease-time", "1ms").want(t, exit.Usage, "ONCEQ-4011", "lease time 1ms: 1s to 12h0m0s")
	onceq(t, "", "queue", "update", q, "--dead-letter", q).want(t, exit.Usage, "ONCEQ-4011", "its own dead-letter queue")
	onceq(t, "", "queue", "create", q+"2", "--dead-letter", q+"2").want(t, exit.Usage, "ONCEQ-4011", "its own dead-letter queue")
	onceq(t, "", "queue", "create", q+"2", "--backoff", "10m", "--backoff-max", "1m").want(t, exit.Usage, "ONCEQ-4011", "backoff from 10m0s to 1m0s")
	onceq(t, "", "queue", "update", "none", "--ttl", "1s").want(t, exit.NotFound)
}

func TestPub_Options(t *testing.T) {
	needCluster(t)
	q := "options"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	onceq(t, "", "pub", q, "x", "--key", "k", "--priority", "3").want(t, exit.Usage, "ONCEQ-2017", "ordering key and priority exclude each other")
	onceq(t, "", "pub", q, "x", "--delay", "1s", "--at", "08:00").want(t, exit.Usage, "delay and deliver-at exclude each other")
	onceq(t, "", "pub", q, "x", "--at", "soon").want(t, exit.Usage, "--at soon")
	if o := onceq(t, "", "pub", q, "urgent", "--priority", "9").want(t, exit.OK); o.out != q+"/p9.0\n" {
		t.Fatal(o)
	}
	onceq(t, "", "pub", q, "keyed", "--key", "customer-7").want(t, exit.OK)
	onceq(t, "", "pub", q, "later", "--delay", "1h").want(t, exit.OK)
	onceq(t, "", "pub", q, "someday", "--at", time.Now().Add(48*time.Hour).Format(time.RFC3339)).want(t, exit.OK)
	onceq(t, "", "queue", "ls").want(t, exit.OK, "PARKED", "DEAD", q)
	if row := queueShow(t, q); row.Ready != 2 || row.Delayed != 2 {
		t.Fatalf("%+v", row)
	}

	// Looking touches nothing.
	o := onceq(t, "", "queue", "peek", q, "--bodies").want(t, exit.OK, "urgent", "keyed", "customer-7")
	if strings.Index(o.out, "urgent") > strings.Index(o.out, "keyed") {
		t.Fatalf("not in the order of delivery: %s", o)
	}
	onceq(t, "", "queue", "peek", q, "--state", "delayed", "--limit", "1").want(t, exit.OK, "due in", "--from options/")
	onceq(t, "", "queue", "peek", q, "--state", "delayed", "-b", "-o", "jsonl").want(t, exit.OK, `"body":"later"`, `"body":"someday"`, `"state":"delayed"`)
	onceq(t, "", "queue", "peek", q, "--from", "other/3").want(t, exit.Usage)
	onceq(t, "", "message", "show", q+"/p9.0").want(t, exit.OK, "urgent", "ready", "priority")
	onceq(t, "", "message", "show", q+"/77").want(t, exit.NotFound, "queue show "+q)
	onceq(t, "", "message", "show", "nonsense").want(t, exit.Usage)

	// A delayed one can be had now, or cancelled.
	onceq(t, "", "message", "requeue", q+"/1").want(t, exit.OK, "ready")
	onceq(t, "", "message", "requeue", q+"/1").want(t, exit.OK, "unchanged")
	onceq(t, "", "message", "delete", q+"/2").want(t, exit.Usage, "--yes")
	onceq(t, "", "message", "delete", q+"/2", "--yes").want(t, exit.OK, "deleted")
	onceq(t, "", "message", "delete", q+"/2", "--yes").want(t, exit.NotFound, "not here")

	o = onceq(t, "", "sub", q, "--until-empty", "-f", `%p %k %b\n`).want(t, exit.OK)
	if o.out != "9  urgent\n0 customer-7 keyed\n0  later\n" {
		t.Fatal(o)
	}
}

// TestSub_Forward_NoMajority_AnInterruptEndsItAndTellsOfTheMessage: whether the last one
// has moved may not be known, and it does not wait for ever to find out.
func TestSub_Forward_NoMajority_AnInterruptEndsItAndTellsOfTheMessage(t *testing.T) {
	needCluster(t)
	from, to := "forward-cut-from", "forward-cut-to"
	for _, q := range []string{from, to} {
		onceq(t, "", "queue", "create", q).want(t, exit.OK)
	}
	onceq(t, strings.Repeat("a line\n", 20_000), "pub", from, "-l").want(t, exit.OK)
	st := statusOfAll(t)
	p, err := start(needBinary(t), "sub", from, "--forward", to, "--prefetch", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	eventually(t, "messages move", func() bool { return queueShow(t, to).Stored > 10 })
	var stopped []string
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != st.Leader {
			onceq(t, "", "dev", "pause", n).want(t, exit.OK)
			stopped = append(stopped, n)
		}
	}
	// By then a message is in hand, whose move has no answer.
	eventually(t, "nobody leads", func() bool { return onceq(t, "", "queue", "show", to, "--timeout", "1s").code != exit.OK })
	p.interrupt()
	code := p.exitCode(t)
	for _, n := range stopped {
		onceq(t, "", "dev", "resume", n).want(t, exit.OK)
	}
	eventually(t, "the cluster leads again", func() bool { return onceq(t, "", "status").code == exit.OK })
	switch said := p.text(); {
	case code == exit.Unknown && strings.Contains(said, "whether it has moved to "+to+" is not known"):
	case code == exit.Unavailable && strings.Contains(said, "stays in its queue"): // it was refused in time
	default:
		t.Errorf("exit code %d, said:\n%s", code, said)
	}
	// Each is in one of the two, whatever was told.
	eventually(t, "each is in one queue", func() bool {
		a, b := queueShow(t, from), queueShow(t, to)
		return a.Ready+a.Leased+b.Ready == 20_000
	})
}

func TestSub_Forward_MovesEachMessage(t *testing.T) {
	needCluster(t)
	from, to, small := "forward-from", "forward-to", "forward-small"
	for _, create := range [][]string{{from}, {to}, {small, "--length-max", "1"}} {
		onceq(t, "", append([]string{"queue", "create"}, create...)...).want(t, exit.OK)
	}
	onceq(t, "", "pub", from, "first", "--key", "customer-7", "--biz-id", "order-1", "--header", "source=web").want(t, exit.OK)
	onceq(t, "", "pub", from, "second", "--priority", "9").want(t, exit.OK)
	onceq(t, "", "sub", from, "--forward", from).want(t, exit.Usage, "the queue that is consumed")
	onceq(t, "", "sub", from, "--forward", "forward-nowhere").want(t, exit.NotFound, "forward-nowhere")

	if o := onceq(t, "", "sub", from, "--forward", to, "--until-empty", "-f", `%b\n`).want(t, exit.OK); o.out != "second\nfirst\n" {
		t.Fatal(o)
	}
	if row := queueShow(t, from); row.Ready+row.Leased+row.Parked != 0 {
		t.Fatalf("left behind: %+v", row)
	}
	onceq(t, "", "sub", to, "--until-empty", "-o", "jsonl").want(t, exit.OK, `"body":"second"`, `"priority":9`, `"body":"first"`,
		`"biz_id":"order-1"`, `"ordering_key":"customer-7"`, `"source"`, `"web"`)

	// What does not fit stays where it was.
	for _, body := range []string{"fits", "stays"} {
		onceq(t, "", "pub", from, body).want(t, exit.OK)
	}
	onceq(t, "", "sub", from, "--forward", small, "--until-empty").want(t, exit.Unavailable, "stays in its queue", small, "full")
	if row := queueShow(t, from); row.Ready != 1 {
		t.Fatalf("%+v", row)
	}
	onceq(t, "", "sub", small, "--until-empty").want(t, exit.OK, "fits")
	onceq(t, "", "sub", from, "--until-empty").want(t, exit.OK, "stays")
}

func TestPauseAndResume(t *testing.T) {
	needCluster(t)
	q := "paused"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	onceq(t, "", "pub", q, "x").want(t, exit.OK)
	onceq(t, "", "queue", "pause", q).want(t, exit.OK, "1 ready")
	onceq(t, "", "queue", "pause", q).want(t, exit.OK)
	onceq(t, "", "queue", "ls").want(t, exit.OK, "paused (paused)")
	onceq(t, "", "queue", "show", q).want(t, exit.OK, "nothing is handed out")
	onceq(t, "", "pub", q, "y").want(t, exit.OK)
	onceq(t, "", "queue", "resume", q).want(t, exit.OK)
	if o := onceq(t, "", "sub", q, "-n", "2").want(t, exit.OK); o.out != "x\ny\n" {
		t.Fatal(o)
	}
	onceq(t, "", "queue", "pause", "none").want(t, exit.NotFound)
}

func TestRedrive_ToOriginWithAFilter(t *testing.T) {
	needCluster(t)
	q, dead := "drive", "drive.dead"
	onceq(t, "", "queue", "create", dead).want(t, exit.OK)
	onceq(t, "", "queue", "create", q, "--dead-letter", dead).want(t, exit.OK)
	onceq(t, "", "queue", "delete", dead, "--yes").want(t, exit.Conflict, q)
	onceq(t, "one\ntwo\nthree\n", "pub", q, "-l").want(t, exit.OK)
	failing(t, q, 3, fmt.Errorf("timeout of"))

	onceq(t, "", "queue", "peek", dead).want(t, exit.OK, "from drive/0: rejected: timeout of: one")
	onceq(t, "", "trace", dead+"/1").want(t, exit.OK, "came from drive/1", "rejected", "two", "ready now")
	onceq(t, "", "trace", dead+"/1", "-o", "json").want(t, exit.OK, `"origin": "drive/1"`, `"event": "rejected"`)
	onceq(t, "", "trace", "drive/0").want(t, exit.NotFound)

	redrive := func(args ...string) outcome {
		return onceq(t, "", append([]string{"queue", "redrive", dead}, args...)...)
	}
	redrive("--to-origin", "--to", q).want(t, exit.Usage)
	redrive().want(t, exit.Usage, "--to")
	redrive("--to-origin", "--where", "size~1").want(t, exit.Usage, "fields are")
	redrive("--to-origin", "--where", "error~(").want(t, exit.Usage, "--where")
	redrive("--to-origin", "--rate", "x").want(t, exit.Usage, "50/s")
	redrive("--to-origin", "--id", "other/1").want(t, exit.Usage)
	redrive("--to-origin", "--where", `error =~ "two|three"`, "--dry-run").want(t, exit.OK, "would move 2 of 3 messages to drive", "--yes")
	redrive("--to-origin", "--where", "error~two").want(t, exit.Usage, "--yes")
	redrive("--to-origin", "--where", "error~four", "--dry-run").want(t, exit.OK, "nothing to move")
	if row := queueShow(t, dead); row.Ready != 3 {
		t.Fatalf("%+v", row)
	}
	redrive("--to-origin", "--where", "error~two", "--where", "body=two", "--rate", "100/s", "--yes").want(t, exit.OK, "1 moved")
	redrive("--to-origin", "--where", "error~two", "--yes").want(t, exit.OK, "0 moved") // again: nothing is left
	if o := redrive("--to", "driven", "--yes").want(t, exit.NotFound, "queue driven: no such queue", "queue create driven"); strings.Contains(o.err, "did you mean \""+dead) {
		t.Fatal(o)
	}
	onceq(t, "", "message", "move", dead+"/0", "--to", "driven").want(t, exit.NotFound, "queue driven: no such queue", "queue create driven")
	redrive("--to-origin", "--id", dead+"/0", "--id", dead+"/1", "--yes").want(t, exit.OK, "1 moved", "1 gone")
	redrive("--to-origin", "--yes").want(t, exit.OK, "1 moved")
	if o := onceq(t, "", "sub", q, "--until-empty").want(t, exit.OK); o.out != "two\none\nthree\n" {
		t.Fatal(o)
	}
	if row := queueShow(t, dead); row.Moved != 3 || row.Stored != 3 {
		t.Fatalf("%+v", row)
	}

	// Without a dead-letter queue they are parked, and go on in place.
	onceq(t, "", "queue", "update", q, "--dead-letter", "").want(t, exit.OK)
	onceq(t, "", "pub", q, "parked").want(t, exit.OK)
	failing(t, q, 1, fmt.Errorf("bad"))
	onceq(t, "", "queue", "peek", q, "--state", "parked", "-b").want(t, exit.OK, "parked", "rejected: bad")
	onceq(t, "", "queue", "redrive", q, "--to-origin", "--yes").want(t, exit.OK, "1 moved")
	if o := onceq(t, "", "sub", q, "-n", "1", "-f", `%a %b\n`).want(t, exit.OK); o.out != "2 parked\n" {
		t.Fatal(o)
	}
	// A sub of a dead letter says why.
	onceq(t, "", "queue", "update", q, "--dead-letter", dead).want(t, exit.OK)
	onceq(t, "", "pub", q, "again").want(t, exit.OK)
	failing(t, q, 1, fmt.Errorf("bad"))
	if o := onceq(t, "", "sub", dead, "-n", "1", "-f", `%r|%b\n`).want(t, exit.OK); o.out != "rejected: bad: again|again\n" {
		t.Fatal(o)
	}
	onceq(t, "", "queue", "delete", dead, "--force", "--yes").want(t, exit.OK)
}

func TestConsumersAndRelease(t *testing.T) {
	needCluster(t)
	q := "held"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	onceq(t, "", "pub", q, "x").want(t, exit.OK)
	c, err := client.Dial(t.Context(), devURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	held, lost, ended := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	first := true
	go func() {
		ended <- c.Consume(ctx, q, func(ctx context.Context, d *client.Delivery) error {
			if !first {
				return nil
			}
			first = false
			close(held)
			<-ctx.Done()
			lost <- d.Ack(t.Context())
			return nil
		}, client.WithConsumerLabel("worker-3"))
	}()
	<-held
	onceq(t, "", "queue", "consumers", q).want(t, exit.OK, "worker-3", "attached")
	onceq(t, "", "queue", "consumers", q, "-o", "json").want(t, exit.OK, `"label": "worker-3"`, `"held": 1`)
	onceq(t, "", "queue", "consumers", "none").want(t, exit.NotFound)
	onceq(t, "", "queue", "peek", q, "--state", "leased").want(t, exit.OK, "held by worker-3")
	onceq(t, "", "trace", q+"/0").want(t, exit.OK, "leased now", "worker-3")
	onceq(t, "", "message", "delete", q+"/0", "--yes").want(t, exit.Conflict, "consumer holds it")
	onceq(t, "", "message", "release", q+"/0", "--yes").want(t, exit.OK, "released")
	if err := <-lost; !strings.Contains(fmt.Sprint(err), "ONCEQ-3001") {
		t.Fatalf("the ack after the release: %v", err)
	}
	eventually(t, "it is handled again", func() bool { return queueShow(t, q).Acked == 1 })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestSessions(t *testing.T) {
	needCluster(t)
	onceq(t, "", "queue", "create", "sessions").want(t, exit.OK)
	onceq(t, "", "pub", "sessions", "x", "--session", "svc-1").want(t, exit.OK)
	onceq(t, "", "session", "ls", "--named").want(t, exit.OK, "svc-1")
	var row sessionRow
	if err := json.Unmarshal([]byte(onceq(t, "", "session", "show", "svc-1", "-o", "json").want(t, exit.OK).out), &row); err != nil || row.Name != "svc-1" || row.Epoch != 1 {
		t.Fatal(err, row)
	}
	onceq(t, "", "session", "show", row.Session).want(t, exit.OK, "svc-1", "floor")
	onceq(t, "", "session", "end", "svc-1").want(t, exit.Usage, "--yes")
	onceq(t, "", "session", "end", "svc-1", "--yes").want(t, exit.OK, "has ended")
	onceq(t, "", "session", "end", "svc-1", "--yes").want(t, exit.NotFound)
	onceq(t, "", "session", "show", row.Session).want(t, exit.NotFound, "session ls")
	onceq(t, "", "session", "show", "s1.999999").want(t, exit.NotFound)
}
