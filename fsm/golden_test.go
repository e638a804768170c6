package fsm_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
)

var record = flag.Bool("record", false, "write testdata/golden anew; see its README")

// The golden files are what a cluster of an earlier build has on its disks. Whatever
// changes in the code, it leads to the recorded state.
const (
	goldenLog      = "testdata/golden/log.bin"      // entries, each with its length (4) before it
	goldenSnapshot = "testdata/golden/snapshot.bin" // in the middle of it
	goldenDigests  = "testdata/golden/digests"
	goldenScript   = "testdata/golden/script" // what was recorded, for people
)

// TestGolden_LogAndSnapshotLeadToTheRecordedState: replayed from the start, and from
// the snapshot.
func TestGolden_LogAndSnapshotLeadToTheRecordedState(t *testing.T) {
	if *record {
		recordGolden(t)
	}
	entries := goldenEntries(t)
	at, want := goldenAt(t)
	m := fsm.New(fsm.Config{Group: fsmtest.Group}, storage.NewMemory())
	for i, e := range entries {
		if _, err := m.Apply(uint64(i+1), e); err != nil {
			t.Fatal(err)
		}
		if i+1 == at && m.Digest() != want["snapshot"] {
			t.Errorf("digest %016x at entry %d, %016x was recorded", m.Digest(), at, want["snapshot"])
		}
	}
	if m.Digest() != want["log"] {
		t.Errorf("digest %016x at the end of the log, %016x was recorded", m.Digest(), want["log"])
	}

	snapshot, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	again := fsm.New(fsm.Config{Group: fsmtest.Group}, storage.NewMemory())
	if err := again.Restore(bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	if again.Digest() != want["snapshot"] {
		t.Errorf("digest %016x after the snapshot, %016x was recorded", again.Digest(), want["snapshot"])
	}
	for i, e := range entries[at:] {
		if _, err := again.Apply(uint64(at+i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	if again.Digest() != want["log"] {
		t.Errorf("digest %016x after the snapshot and the rest of the log, %016x was recorded", again.Digest(), want["log"])
	}
}

// TestGolden_HasEveryKindOfCommand: a new kind must be recorded as well.
func TestGolden_HasEveryKindOfCommand(t *testing.T) {
	t.Parallel()
	seen := map[uint64]bool{}
	for i, e := range goldenEntries(t) {
		for rest := e[32:]; len(rest) > 0; rest = rest[5+binary.BigEndian.Uint32(rest[1:]):] {
			if len(rest) < 5 || int(binary.BigEndian.Uint32(rest[1:])) > len(rest)-5 {
				t.Fatalf("entry %d is cut short", i+1)
			}
			seen[uint64(rest[0])] = true
		}
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), "ids.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Kind" {
			return true
		}
		v, err := strconv.ParseUint(spec.Values[0].(*ast.BasicLit).Value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		kinds++
		if !seen[v] {
			t.Errorf("%s is not in the golden log: add it to %s and record anew", spec.Names[0].Name, goldenScript)
		}
		return true
	})
	if kinds == 0 {
		t.Fatal("no kinds are declared")
	}
}

func goldenEntries(t *testing.T) (entries [][]byte) {
	t.Helper()
	log, err := os.ReadFile(goldenLog)
	if err != nil {
		t.Fatal(err)
	}
	for len(log) > 0 {
		n := int(binary.BigEndian.Uint32(log))
		entries = append(entries, log[4:4+n])
		log = log[4+n:]
	}
	return entries
}

// goldenAt reads the digests, and after which entry the snapshot was taken.
func goldenAt(t *testing.T) (at int, digests map[string]uint64) {
	t.Helper()
	text, err := os.ReadFile(goldenDigests)
	if err != nil {
		t.Fatal(err)
	}
	digests = map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var entry int
		var digest uint64
		if _, err := fmt.Sscanf(line, "%s after entry %d: %x", &name, &entry, &digest); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if digests[name] = digest; name == "snapshot" {
			at = entry
		}
	}
	return at, digests
}

// recordGolden runs the script and writes what a cluster would have on its disks. A
// line is an entry, its commands separated by semicolons as in the scripts; `at TIME`
// before them moves the clock. `backup NAME` and `snapshot` are lines of their own.
func recordGolden(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(goldenScript)
	if err != nil {
		t.Fatal(err)
	}
	s := newScript(t)
	var log, digests bytes.Buffer
	note := func(name string) {
		fmt.Fprintf(&digests, "%s after entry %d: %016x\n", name, s.index, s.m.Digest())
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch words := strings.Fields(line); {
		case len(words) == 0 || words[0][0] == '#':
			continue
		case words[0] == "backup":
			b, err := fsmtest.TakeBackup(s.m, fsm.Config{Group: fsmtest.Group})
			if err != nil {
				t.Fatal(err)
			}
			b.ID = [16]byte{1}
			s.backups[words[1]] = b
			continue
		case words[0] == "snapshot":
			snap, err := s.m.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			var buf bytes.Buffer
			if _, err := snap.WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			snap.Release()
			write(t, goldenSnapshot, buf.Bytes())
			note("snapshot")
			continue
		case words[0] == "at":
			s.now = fsm.Time(duration(t, words[1]))
			line = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(line, "at"), " "+words[1]))
		}
		var cs []fsmtest.Command
		for c := range strings.SplitSeq(line, ";") {
			switch c = strings.TrimSpace(c); {
			case c == "":
			case c == "verdict":
				cs = append(cs, verdictCommand(fsm.Verdict{Index: s.index, Version: s.m.Version(), Voters: 1, Values: []fsm.NodeDigest{{Node: "n1", Digest: s.m.Digest()}}}))
			case strings.HasPrefix(c, "restore-"):
				cs = append(cs, s.restoring(c)...)
			default:
				cs = append(cs, parseCommand(t, c))
			}
		}
		s.index++
		entry := fsmtest.Entry(s.index, s.now, 1_700_000_000e9, cs...)
		eff, err := s.m.Apply(s.index, entry)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("entry %d: %s\n%s", s.index, line, strings.Join(fsmtest.Describe(eff), "\n"))
		for i, r := range eff.Results {
			if r.Status != fsm.StatusOK {
				t.Errorf("entry %d, command %d of %q is answered with status %d", s.index, i, line, r.Status)
			}
		}
		log.Write(binary.BigEndian.AppendUint32(nil, uint32(len(entry))))
		log.Write(entry)
	}
	note("log")
	write(t, goldenLog, log.Bytes())
	write(t, goldenDigests, digests.Bytes())
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
