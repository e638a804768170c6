package main

import (
	"encoding/json"
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

// A cluster that is broken on purpose must turn the demo red. The faults are
// put into the queue machine's source when the test builds a binary of its own
// (go build -overlay), so that no broken code lives in the product. A fault that
// no longer finds its place in the source fails the test: move it then.
func TestDemo_BrokenCluster_TurnsRed(t *testing.T) {
	needBinary(t)
	for _, c := range []struct {
		name     string
		file     string
		old, new string
		kinds    []ledger.Kind
	}{
		{
			name:  "a confirmed message is dropped",
			file:  "fsm/session.go",
			old:   `	first := m.store(q, as, messages, wall)`,
			new:   `	first := place{as[0].priority, q.laneFor(as[0].priority).tail}; if p.sequence%1000 != 500 { first = m.store(q, as, messages, wall) }`,
			kinds: []ledger.Kind{ledger.LostMessage},
		},
		{
			name:  "a message is stored twice",
			file:  "fsm/session.go",
			old:   `	first := m.store(q, as, messages, wall)`,
			new:   `	if p.sequence%1000 == 500 { m.store(q, as, messages, wall) }; first := m.store(q, as, messages, wall)`,
			kinds: []ledger.Kind{ledger.StoredTwice},
		},
		{
			name: "a failover redelivers",
			file: "fsm/machine.go",
			old: `		if c.attached {
			m.detachConsumer(c)
`,
			new: `		if c.attached {
			m.detachConsumer(c)
			c.gone = goneDead
			m.retime(c)
`,
			kinds: []ledger.Kind{ledger.LeaseTaken},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			bin := buildBroken(t, c.file, c.old, c.new)
			cmd := exec.CommandContext(t.Context(), bin, short("1")...)
			var out, errOut strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errOut
			cmd.Run()
			o := outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
			r := result(t, o.want(t, exit.CheckFailed))
			if r.Balanced {
				t.Fatal(o)
			}
			for _, k := range c.kinds {
				if r.Count[k] == 0 {
					t.Errorf("no finding %q: %s", k, o)
				}
			}
			if _, err := os.Stat(r.Dir); err != nil {
				t.Errorf("the data of a red run is not kept: %v", err)
			}
		})
	}
}

// buildBroken builds onceq with one piece of source replaced.
func buildBroken(t *testing.T, file, old, new string) string {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("..", "..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		t.Fatalf("the place of this fault is %d times in %s: %q", n, file, old)
	}
	dir := t.TempDir()
	broken := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(broken, []byte(strings.Replace(string(b), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: broken}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "onceq")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with a fault in %s: %v\n%s", file, err, out)
	}
	return bin
}
