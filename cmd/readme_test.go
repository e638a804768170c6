package cmd_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cluster/clustertest"
)

// TestReadme_GoProgram_RunsFromAnotherModule does what the README says: its
// program, as written, in a module outside this repository, against a cluster.
func TestReadme_GoProgram_RunsFromAnotherModule(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, ok := strings.Cut(string(readme), "```go\n")
	if !ok {
		t.Fatal("the README has no Go program")
	}
	program, _, _ = strings.Cut(program, "```")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	c := clustertest.New(t, 3)
	c.WaitLeader()
	ctx, cancel := context.WithTimeout(t.Context(), 5*clustertest.Bound) // the module is built from scratch
	defer cancel()
	run := func(args ...string) string {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "ONCEQ_URL="+c.URL(), "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("go", "mod", "init", "example.com/payments")
	run("go", "mod", "edit", "-require=onceq@v0.0.0", "-replace=onceq="+checkout)
	run("go", "mod", "tidy")
	out := run("go", "run", ".")
	for _, want := range []string{"stored as payments/0", "payment-1: 42 EUR (attempt 1)"} {
		if !strings.Contains(out, want) {
			t.Errorf("the program wrote %q, it should say %q", out, want)
		}
	}
}
