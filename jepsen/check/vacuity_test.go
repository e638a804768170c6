package check

import (
	"fmt"
	"strings"
	"testing"

	"onceq/jepsen/history"
)

func TestCalm_PublishesToAFullQueueAreNoSignOfTrouble(t *testing.T) {
	t.Parallel()
	for err, want := range map[string]Verdict{
		"queue small: " + queueFull + ": wait for consumers": Valid,
		"no leader": Unknown,
	} {
		var b strings.Builder
		b.WriteString("run calm=80\n0 1000 j calm\n")
		for i := range calmLeast {
			fmt.Fprintf(&b, "%d %d p1 publish a%d seq=%d\n%d %d c1 deliver a%d seq=%d attempt=1\n%d %d c1 ack a%d attempt=1\n", i, i+1, i, i, i+2, i+2, i, i, i+3, i+4, i)
			fmt.Fprintf(&b, "%d %d p1 publish b%d fail err=%s\n", i, i+1, i, strings.ReplaceAll(err, " ", "+"))
		}
		b.WriteString("2000 2001 j drain\n")
		events, perr := history.ParseText(b.String())
		if perr != nil {
			t.Fatal(perr)
		}
		if r := Run(events); r.Verdict != want {
			t.Errorf("half of the publishes are answered %q: %s (%v, %v), want %s", err, r.Verdict, r.Reasons, r.Violations, want)
		}
	}
}
