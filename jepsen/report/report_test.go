package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
)

func TestWrite_ShowsTheVerdictAndTheLinesAroundAViolation(t *testing.T) {
	t.Parallel()
	events, err := history.ParseText(`
		run faults=kill
		0 1 p1 publish a seq=0
		500 900 nemesis fault key=kill node=n<1> text=gone seen
		1000 1001 p2 publish a seq=7
		1100 1101 p1 publish other seq=8
		1200 1201 j status node=n1 role=leader term=3 applied=9`)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	err = Write(&buf, Run{Setup: *events[0].Setup, Report: check.Run(events), Events: events, Command: "jepsen --seed 7", Logs: []string{"n1.log"}})
	if err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	for _, want := range []string{">invalid<", "stored-twice a", "at offset 0 (publish) and at offset 7", "key=kill", "jepsen --seed 7", `href="n1.log"`, "<td>kill</td><td>1</td>", "n&lt;1&gt;", `class="leading"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the report", want)
		}
	}
	if strings.Contains(text, "n<1>") {
		t.Error("a name is not escaped")
	}
	for _, svg := range strings.Split(text, "<svg")[1:] {
		d := xml.NewDecoder(strings.NewReader("<svg" + svg[:strings.Index(svg, "</svg>")+6]))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a chart is not well-formed: %v", err)
			}
		}
	}
}

func TestWrite_AnEmptyHistoryIsShownToo(t *testing.T) {
	t.Parallel()
	if err := Write(io.Discard, Run{Report: check.Run(nil)}); err != nil {
		t.Fatal(err)
	}
}
