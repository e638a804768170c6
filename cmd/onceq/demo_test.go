package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cmd/onceq/internal/demo"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/ledger"
)

// short is a demo of some seconds.
func short(kills string) []string {
	return []string{"demo", "--messages", "9000", "--rate", "3000", "--kills", kills, "--seed", "7", "-o", "json"}
}

func result(t *testing.T, o outcome) (r demo.Result) {
	t.Helper()
	r.Report = &ledger.Report{}
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		t.Fatal(err, o)
	}
	return r
}

func TestDemo_BooksBalance(t *testing.T) {
	needBinary(t)
	t.Setenv("TMPDIR", t.TempDir())
	o := onceq(t, "", short("2")...).want(t, exit.OK, "the leader, killed with kill -9", "is back")
	if n := strings.Count(o.err, "killed with kill -9"); n != 2 {
		t.Fatalf("%d kills: %s", n, o)
	}
	if strings.Contains(o.err, "\r") {
		t.Fatal("a line is drawn over although nobody watches")
	}
	r := result(t, o)
	if !r.Balanced || r.Published != 9000 || r.Confirmed != 9000 || r.Stored != 9000 || r.Acked != 9000 || r.DigestsAgree != 3 || r.Nacked == 0 || r.Delivered != 9000+r.Nacked {
		t.Fatalf("%+v", r.Report)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Fatal("something is left behind", left, err)
	}
}

func TestDemo_TwoSideBySide(t *testing.T) {
	bin := needBinary(t)
	args := []string{"demo", "--messages", "3000", "--rate", "1500", "--kills", "1"}
	var ps []*process
	for range 2 {
		p, err := start(bin, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { p.cmd.Process.Kill(); <-p.done }()
		ps = append(ps, p)
	}
	for _, p := range ps {
		if code := p.exitCode(t); code != exit.OK {
			t.Fatalf("exit code %d: %s", code, p.text())
		}
	}
}

func TestDemo_Interrupted_EndsWithNothingLeft(t *testing.T) {
	bin := needBinary(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	p, err := start(bin, "demo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	if err := p.await("confirmed,"); err != nil {
		t.Fatal(err)
	}
	p.interrupt()
	if code := p.exitCode(t); code != exit.Interrupted {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Fatal("something is left behind", left, err)
	}
	out, _ := exec.Command("pgrep", "-f", tmp).Output() // exit status 1 when there is none
	if s := strings.TrimSpace(string(out)); s != "" {
		t.Fatalf("processes are left: %s", s)
	}
}

// brokenEnv says which of the faults a binary of buildBroken has.
const brokenEnv = "DEMO_TEST_FAULT"

// fault replaces a piece of a source file of package fsm.
type fault struct{ file, old, new string }

// A cluster that is broken on purpose must turn the demo red. The faults are
// put into the queue machine's source when the test builds a binary of its own
// (go build -overlay), so that no broken code lives in the product. A fault that
// no longer finds its place in the source fails the test: move it then.
func TestDemo_BrokenCluster_TurnsRed(t *testing.T) {
	needBinary(t)
	t.Parallel()
	bin := buildBroken(t,
		fault{"fsm/session.go",
			`	first := m.store(q, as, messages, wall)`,
			`	first := place{as[0].priority, q.laneFor(as[0].priority).tail}
	if fault != "drop" || p.sequence%1000 != 500 {
		first = m.store(q, as, messages, wall)
	}
	if fault == "double" && p.sequence%1000 == 500 {
		m.store(q, as, messages, wall)
	}`},
		fault{"fsm/machine.go",
			`		if c.attached {
			m.detachConsumer(c)
`,
			`		if c.attached {
			m.detachConsumer(c)
			if fault == "redeliver" {
				c.gone = goneDead
				m.retime(c)
			}
`})
	for _, c := range []struct {
		name, fault string
		kind        ledger.Kind
	}{
		{"a confirmed message is dropped", "drop", ledger.LostMessage},
		{"a message is stored twice", "double", ledger.StoredTwice},
		{"a failover redelivers", "redeliver", ledger.LeaseTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), bin, short("1")...)
			cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), brokenEnv+"="+c.fault)
			var out, errOut strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errOut
			cmd.Run()
			o := outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
			r := result(t, o.want(t, exit.CheckFailed))
			if r.Balanced {
				t.Fatal(o)
			}
			if r.Count[c.kind] == 0 {
				t.Errorf("no finding %q: %s", c.kind, o)
			}
			if _, err := os.Stat(r.Dir); err != nil {
				t.Errorf("the data of a red run is not kept: %v", err)
			}
		})
	}
}

// buildBroken builds onceq with pieces of source replaced, which do something wrong
// when brokenEnv says so.
func buildBroken(t *testing.T, faults ...fault) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	put := func(file, text string) {
		source, err := filepath.Abs(filepath.Join("..", "..", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		replace[source] = filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(replace[source], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("fsm/fault.go", fmt.Sprintf("package fsm\n\nimport \"os\"\n\nvar fault = os.Getenv(%q)\n", brokenEnv))
	for _, f := range faults {
		b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(f.file)))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), f.old); n != 1 {
			t.Fatalf("the place of this fault is %d times in %s: %q", n, f.file, f.old)
		}
		put(f.file, strings.Replace(string(b), f.old, f.new, 1))
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "onceq")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with faults: %v\n%s", err, out)
	}
	return bin
}
