package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
)

func TestParseWhere(t *testing.T) {
	for in, want := range map[string]client.Condition{
		"reason=rejected":      {Field: client.FieldReason, Match: client.MatchEqual, Value: "rejected"},
		"error~^time":          {Field: client.FieldError, Match: client.MatchRegexp, Value: "^time"},
		`origin =~ "ord"`:      {Field: client.FieldOrigin, Match: client.MatchRegexp, Value: "ord"},
		" key = k ":            {Field: client.FieldKey, Match: client.MatchEqual, Value: "k"},
		`biz-id="b = 1"`:       {Field: client.FieldBizID, Match: client.MatchEqual, Value: "b = 1"},
		"body~(?i)pay|refund$": {Field: client.FieldBody, Match: client.MatchRegexp, Value: "(?i)pay|refund$"},
	} {
		if c, err := parseWhere(in); err != nil || c != want {
			t.Errorf("%s: %+v, %v", in, c, err)
		}
	}
	for _, bad := range []string{"", "reason", "size=1", "reason~(", "=x", "~"} {
		if _, err := parseWhere(bad); exit.Of(err) != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]float64{"": 0, "50/s": 50, "50": 50, "0.5/s": 0.5} {
		if got, err := parseRate(in); got != want || err != nil {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"0", "-1/s", "x", "50/m"} {
		if _, err := parseRate(bad); exit.Of(err) != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"2026-12-01T08:00:00Z": time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC),
		"2026-12-01 08:00":     time.Date(2026, 12, 1, 8, 0, 0, 0, zone),
		"2026-12-01T08:00:05":  time.Date(2026, 12, 1, 8, 0, 5, 0, zone),
		"13:30":                time.Date(2026, 11, 30, 13, 30, 0, 0, zone),
		"08:00":                time.Date(2026, 12, 1, 8, 0, 0, 0, zone),
		"12:00:00":             time.Date(2026, 12, 1, 12, 0, 0, 0, zone),
	} {
		if got, err := parseWhen(in, now); !got.Equal(want) || err != nil {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, bad := range []string{"soon", "25:00", "2026-13-01 08:00"} {
		if _, err := parseWhen(bad, now); exit.Of(err) != exit.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestLife_SaysWhatIsNotKept: of a message that failed often, and of one that has
// not failed.
func TestLife_SaysWhatIsNotKept(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	m := &client.MessageInfo{Queue: "orders"}
	m.Offset, m.State, m.Age, m.Attempts = 17, client.Ready, time.Minute, 0
	text := strings.Join(life(m, now), "\n")
	for _, want := range []string{"11:59:00  stored        as orders/17", "counted and not kept", "ready now"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	m.State, m.Reason, m.LastError = client.Parked, "delivery limit reached", "no luck"
	for i := range eventsKept {
		m.Events = append(m.Events, client.MessageEvent{Ago: time.Duration(50-i) * time.Second, Kind: 2, Attempt: uint32(i + 5), Consumer: 3, Text: "no luck"})
	}
	text = strings.Join(life(m, now), "\n")
	for _, want := range []string{"older events are not kept", "11:59:10  nacked        consumer #3, attempt 5: no luck", "delivery limit reached: no luck", "requeue orders/17"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// Ages are in cluster time, which stands still while nobody leads. When a message was
// stored is known by the clock, and does not move.
func TestLife_ClusterTimeStoodStill_IsSaid(t *testing.T) {
	now := time.Now()
	m := &client.MessageInfo{Queue: "orders", Content: &client.Message{Body: []byte("x")}}
	m.PublishedAt = now.Add(-10 * time.Minute).UnixNano()
	m.Offset, m.State, m.Age, m.Attempts = 17, client.Ready, 10*time.Minute, 1
	m.Events = []client.MessageEvent{{Ago: 5 * time.Minute, Kind: 2, Attempt: 1, Consumer: 3, Text: "no luck"}}
	nacked := now.Add(-5 * time.Minute).Format("15:04:05")
	if text := strings.Join(life(m, now), "\n"); !strings.Contains(text, nacked+"  nacked") || strings.Contains(text, "~") {
		t.Errorf("it did not stand still:\n%s", text)
	}
	m.Age -= 3 * time.Minute
	text := strings.Join(life(m, now), "\n")
	for _, want := range []string{now.Add(-10*time.Minute).Format("15:04:05") + "  stored", nacked + "~ nacked", "stayed 3m00s behind"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestRedrive_Interrupted_GoesOnWithTheRest: each message is sent back once, however
// often the command is stopped.
func TestRedrive_Interrupted_GoesOnWithTheRest(t *testing.T) {
	needCluster(t)
	const n = 40
	q, dead := "drive-on", "drive-on.dead"
	onceq(t, "", "queue", "create", dead).want(t, exit.OK)
	onceq(t, "", "queue", "create", q, "--dead-letter", dead).want(t, exit.OK)
	var want strings.Builder
	for i := range n {
		fmt.Fprintf(&want, "m%d\n", i)
	}
	onceq(t, want.String(), "pub", q, "-l").want(t, exit.OK)
	failing(t, q, n, fmt.Errorf("bad"))
	for moved := uint64(0); moved < 2; moved = queueShow(t, dead).Moved {
		p, err := start(needBinary(t), "queue", "redrive", dead, "--to-origin", "--rate", "20/s", "--yes")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "some are moved", func() bool { return queueShow(t, dead).Moved > moved })
		p.interrupt()
		if code := p.exitCode(t); code != exit.Interrupted && code != exit.OK && code != exit.Unknown {
			t.Fatalf("exit code %d: %s", code, p.text())
		}
	}
	onceq(t, "", "queue", "redrive", dead, "--to-origin", "--yes").want(t, exit.OK, "moved")
	if o := onceq(t, "", "sub", q, "--until-empty").want(t, exit.OK); o.out != want.String() {
		t.Fatal(o)
	}
	if row := queueShow(t, dead); row.Moved != n || row.Ready != 0 {
		t.Fatalf("%+v", row)
	}
}
