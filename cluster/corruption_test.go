package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceq/cluster/raftlog"
)

// part is a file of a node's directory that is damaged, and how it is found.
type part struct {
	name    string
	pattern string // the newest that fits
	inside  string // text in a place that is used; empty: the middle of the file
	other   string // what it is swapped with: the oldest that fits
}

// damages is what happens to a file of a node that is down.
var damages = []struct {
	name string
	do   func(p part, path, other string) error
}{
	{"flipped bit", func(p part, path, _ string) error {
		return edit(p, path, func(b []byte, at []int) []byte {
			for _, i := range at {
				b[i] ^= 4
			}
			return b
		})
	}},
	{"truncated", func(p part, path, _ string) error {
		return edit(p, path, func(b []byte, at []int) []byte { return b[:at[0]] })
	}},
	{"tail of zeros", func(p part, path, _ string) error {
		return edit(p, path, func(b []byte, at []int) []byte { clear(b[at[0]:]); return b })
	}},
	{"missing", func(_ part, path, _ string) error { return os.Remove(path) }},
	{"swapped", func(_ part, path, other string) error {
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(other)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		return os.WriteFile(other, a, 0o600)
	}},
}

// edit changes a file in each place that may be in use: boltdb leaves old copies of
// its pages.
func edit(p part, path string, change func(b []byte, at []int) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := []int{len(b) / 2}
	if p.inside != "" {
		at = nil
		for from := 0; ; {
			i := bytes.Index(b[from:], []byte(p.inside))
			if i < 0 {
				break
			}
			from += i + len(p.inside)
			at = append(at, from)
		}
		if at == nil {
			return fmt.Errorf("%s: %q is not in it", path, p.inside)
		}
	}
	return os.WriteFile(path, change(b, at), 0o600)
}

func newestThat(t *testing.T, dir, pattern string, last bool, p part) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	slices.Sort(names)
	if !last {
		return names[0]
	}
	for i := len(names) - 1; i >= 0; i-- { // the newest segment may be empty yet
		if b, err := os.ReadFile(names[i]); err == nil && bytes.Contains(b, []byte(p.inside)) {
			return names[i]
		}
	}
	return names[len(names)-1]
}

// TestCorruption_OneFileAtATime damages each file of a stopped node in each way. The
// node refuses to start or stops, and names the file; or it has lost nothing, and
// serves what it had. It never serves a wrong body, and never comes up with less than
// it had stored and voted. What makes it refuse is what 'onceq node verify' says.
func TestCorruption_OneFileAtATime(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{raftlog.KindWAL, raftlog.KindBolt} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			parts := []part{
				{"stable store", "log/stable.db", "onceq/vote", "log/highwater"},
				{"high-water file", "log/highwater", "onceqhw1", "log/stable.db"},
				{"snapshot tables", "snapshots/*/state.bin", "", "snapshots/*/state.bin"},
				{"snapshot description", "snapshots/*/meta.json", "", "snapshots/*/state.bin"},
				{"snapshot bodies", "snapshots/*/annex/*.sst", "message", "snapshots/*/annex/MANIFEST-*"},
				{"snapshot's list of bodies", "snapshots/*/annex/MANIFEST-*", "", "snapshots/*/annex/*.sst"},
				{"live bodies", "bodies/*.sst", "", "bodies/MANIFEST-*"},
			}
			if kind == raftlog.KindWAL {
				parts = append(parts, part{"list of segments", "log/wal/wal-meta.db", "SizeLimit", "log/stable.db"})
			}
			whole := &stepped{t: t, dir: t.TempDir(), kind: kind, bodies: BodiesDisk}
			for range 4 {
				if code, fatal := whole.life(nothing, nothing); code != 0 {
					t.Fatal(fatal)
				}
			}
			newest := fmt.Sprintf("message %d ", 24*stepperBatch-1) // of four lives with six entries each
			if kind == raftlog.KindWAL {
				parts = append(parts, part{"raft log", "log/wal/*.wal", newest, "log/wal/*.wal"})
			} else {
				parts = append(parts, part{"raft log", "log/" + raftlog.BoltFile, newest, "log/stable.db"})
			}
			for _, p := range parts {
				for _, d := range damages {
					t.Run(strings.ReplaceAll(p.name+" "+d.name, " ", "-"), func(t *testing.T) { corrupt(t, whole, p, d.name, d.do) })
				}
			}
		})
	}
}

func corrupt(t *testing.T, whole *stepped, p part, name string, do func(p part, path, other string) error) {
	s := *whole
	s.t, s.dir = t, filepath.Join(t.TempDir(), "d")
	if err := os.CopyFS(s.dir, os.DirFS(whole.dir)); err != nil {
		t.Fatal(err)
	}
	path, other := newestThat(t, s.dir, p.pattern, true, p), newestThat(t, s.dir, p.other, false, part{})
	if path == other {
		t.Fatalf("%s cannot be swapped with itself", path)
	}
	if err := do(p, path, other); err != nil {
		t.Fatal(err)
	}
	report, openErr := raftlog.Verify(raftlog.Options{Dir: filepath.Join(s.dir, logDir), Kind: s.kind, Owner: "n1", Known: true, Annex: annex}, s.dir)
	found := openErr != nil || len(report.Problems) > 0
	code, fatal := s.life(nothing, nothing) // compares what it serves, and how far it reaches
	row := func(outcome string) { t.Logf("| %-25s | %-13s | %-8s | %.140s", p.name, name, outcome, fatal) }
	if code == 0 {
		row("harmless")
		return
	}
	row("refused")
	if !found {
		t.Errorf("verify finds nothing: %+v", report)
	}
	// Pebble names a table by its number. Of a log whose end is gone nobody can say
	// which file it was in: then it is the directory, like where tables and their list
	// do not agree.
	named := []string{filepath.Base(path), filepath.Dir(path), filepath.Base(other), filepath.Join(s.dir, logDir), strings.TrimSuffix(filepath.Base(path), ".sst")}
	if !slices.ContainsFunc(named, func(n string) bool { return strings.Contains(fatal, n) }) {
		t.Errorf("the message does not say which file: %d, %q", code, fatal)
	}
}
