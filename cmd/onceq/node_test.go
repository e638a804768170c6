package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cluster/clustertest"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

// nodeTool runs one command line and returns its exit code and everything it has said.
func nodeTool(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var said bytes.Buffer
	code := run(context.Background(), args, &console.Console{In: strings.NewReader(""), Out: &said, Err: &said})
	return code, said.String()
}

func TestNode_VerifyAndWipe(t *testing.T) {
	c := clustertest.New(t, 1)
	n := c.WaitLeader()
	dir, old := n.Dir, n.Status().ServerID
	if code, said := nodeTool(t, "node", "verify", dir); code != exit.Conflict || !strings.Contains(said, "stop") {
		t.Fatalf("verify of a node that runs: %d, %s", code, said)
	}
	c.Stop(n)
	want := func(code int, says string, args ...string) {
		t.Helper()
		if got, said := nodeTool(t, append([]string{"node"}, args...)...); got != code || !strings.Contains(said, says) {
			t.Fatalf("onceq node %s: exit %d, want %d and %q; said:\n%s", strings.Join(args, " "), got, code, says, said)
		}
	}
	want(exit.OK, "no problems", "verify", dir)
	want(exit.OK, `"clean_stop":true`, "verify", dir, "-o", "jsonl")
	want(exit.NotFound, "no data directory", "verify", t.TempDir())
	identity := filepath.Join(dir, "identity")
	want(exit.NotFound, identity+" is a file", "verify", identity)
	away := filepath.Join(filepath.Dir(dir), "away")
	if err := os.Rename(identity, away); err != nil {
		t.Fatal(err)
	}
	want(exit.CheckFailed, "has lost its identity file", "wipe", dir, "--yes")
	if err := os.Rename(away, identity); err != nil {
		t.Fatal(err)
	}
	want(exit.OK, "Nothing was changed", "wipe", dir, "--dry-run")
	want(exit.Usage, "nobody can be asked", "wipe", dir)
	want(exit.OK, "no problems", "verify", dir)

	mark := filepath.Join(dir, "groups", "1", "log", "highwater")
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	want(exit.CheckFailed, "there is no "+mark, "verify", dir)
	want(exit.OK, "joins cluster", "wipe", dir, "--yes")
	if _, err := os.Stat(filepath.Join(dir, "groups")); !os.IsNotExist(err) {
		t.Fatalf("the log is still there: %v", err)
	}
	_, said := nodeTool(t, "node", "verify", dir, "-o", "json")
	if strings.Contains(said, old) {
		t.Fatalf("wiped, and still %s:\n%s", old, said)
	}
	want(exit.Failure, "belongs to no cluster yet", "wipe", dir, "--yes")
}
