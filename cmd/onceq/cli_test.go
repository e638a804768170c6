package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/contexts"
	"onceq/cmd/onceq/internal/exit"
	"onceq/transport/wire"
)

// leaves are all commands.
func leaves(t *testing.T) []*kong.Node {
	t.Helper()
	var root cli
	k, err := kong.New(&root, kong.ExplicitGroups(helpGroups))
	if err != nil {
		t.Fatal(err)
	}
	return k.Model.Leaves(false)
}

func TestHelp_EveryCommand(t *testing.T) {
	for _, leaf := range leaves(t) {
		path := strings.Fields(leaf.Path())
		var args []string
		for _, p := range path {
			if !strings.HasPrefix(p, "<") && p != "onceq" && !strings.HasPrefix(p, "[") {
				args = append(args, p)
			}
		}
		o := inProcess(t, "", append(args, "--help")...).want(t, exit.OK, "Usage: onceq "+args[0])
		if leaf.Help == "" {
			t.Errorf("%v has no help", args)
		}
		// The examples stand at the command, or at the group that it belongs to.
		example := strings.Contains(o.out, "onceq "+args[0]+" ") && len(args) == 1
		if !example && len(args) > 1 {
			g := inProcess(t, "", args[0], "--help")
			example = strings.Contains(g.out, "    onceq "+args[0])
		}
		if !example && args[0] != "version" {
			t.Errorf("%v has no example", args)
		}
	}
	inProcess(t, "").want(t, exit.OK, "Usage: onceq", "Exit codes")
	if v := inProcess(t, "", "version").want(t, exit.OK, "onceq "); inProcess(t, "", "--version") != v {
		t.Errorf("--version is not %s", v)
	}
}

// TestHelp_TellsEveryDefault: a placeholder hides it otherwise.
func TestHelp_TellsEveryDefault(t *testing.T) {
	t.Parallel()
	hidden := 0
	for _, leaf := range leaves(t) {
		for _, f := range leaf.Flags {
			if hidesDefault(f.Value) {
				hidden++
			}
		}
	}
	if hidden == 0 {
		t.Error("no flag has a placeholder and a default")
	}
	inProcess(t, "", "bench", "e2e", "--help").want(t, exit.OK, "Messages a second of the paced load; default", "Bytes of a body; may be repeated; default 16,1024.")
	inProcess(t, "", "server", "--help").want(t, exit.OK, "default 256MiB.")
}

// TestUsageErrors_NameTheHelpAsItCanBeTyped: a shell would redirect to <queue>.
func TestUsageErrors_NameTheHelpAsItCanBeTyped(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"  see  onceq pub --help\n":              {"pub", "q", "b", "--nonsense"},
		"  see  onceq queue redrive --help\n":    {"queue", "redrive", "q"},
		"  see  onceq message delete --help\n":   {"message", "delete", "q/1", "--to", "x"},
		"  see  onceq --help\n":                  {"nonsense"},
		"  see  onceq cluster transfer --help\n": {"cluster", "transfer", "n1", "n2"},
	} {
		if o := inProcess(t, "", args...); o.code != exit.Usage || !strings.HasSuffix(o.err, want) {
			t.Errorf("%v: want %q at the end, got %s", args, want, o)
		}
	}
}

// TestErrors_NameCommandsThatExist: what to do about an error can be typed as it stands.
func TestErrors_NameCommandsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, leaf := range leaves(t) {
		words := strings.Fields(leaf.Path())
		known[words[0]] = true
		known[strings.Join(words[:min(2, len(words))], " ")] = true
	}
	command, found := regexp.MustCompile("`onceq ([a-z]+(?: [a-z]+)?)[^`]*`"), 0
	for _, code := range wire.Codes() {
		ex, _ := wire.Explain(code)
		for _, m := range command.FindAllStringSubmatch(ex.What+ex.Why+ex.Do, -1) {
			if found++; !known[m[1]] {
				t.Errorf("%s names %s, which is no command", ex.Name, m[0])
			}
		}
	}
	if found == 0 {
		t.Error("no explanation names a command")
	}
}

func TestUsageErrors_HaveExitCode2(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	node := []string{"server", "--name", "n1", "--data-dir", filepath.Join(t.TempDir(), "d")}
	for _, c := range []struct {
		args []string
		text string
	}{
		{[]string{"nonsense"}, "unexpected argument nonsense"},
		{[]string{"pub"}, "<queue>"},
		{[]string{"pub", "q", "body", "-l"}, "exclude each other"},
		{[]string{"pub", "q", "-l", "--biz-id", "x"}, "exclude each other"},
		{[]string{"pub", "q", "b", "-H", "novalue"}, "NAME=VALUE"},
		{[]string{"pub", "q", "b", "--in-flight", "0"}, "--in-flight"},
		{[]string{"pub", "q", "b", "-o", "xml"}, "table"},
		{[]string{"pub", "q", "b", "--url", "some words"}, "write host:port"},
		{[]string{"sub", "q", "-f", "%x"}, "no verb %x"},
		{[]string{"sub", "q", "--prefetch", "0"}, "--prefetch"},
		{[]string{"sub", "q", "-n", "0"}, "-n 0: from 1 on"},
		{[]string{"queue", "redrive", "q", "--to", "q", "--yes"}, "that is the queue that is redriven"},
		{[]string{"message", "move", "q/1", "--to", "q"}, "q/1 is in that queue"},
		{[]string{"queue", "create", "q", "--lease-time", "0s"}, "--lease-time 0s: from 1s to 12h"},
		{[]string{"queue", "update", "q", "--lease-time", "0s"}, "--lease-time 0s: from 1s to 12h"},
		{[]string{"queue", "create", "q", "--lease-time", "5"}, "a unit is missing: write 5s"},
		{[]string{"queue", "ls", "--timeout", "0s"}, "--timeout 0s: must be above 0"},
		{[]string{"pub", "q", "b", "--timeout=-1s"}, "--timeout -1s: must be above 0"},
		{[]string{"outcome", "nonsense"}, "s1.42.1093"},
		{[]string{"errors", "x"}, "ONCEQ-2010"},
		{[]string{"demo", "--messages", "0"}, "--messages"},
		{[]string{"demo", "--nodes", "99"}, "--nodes"},
		{[]string{"dev", "--nodes", "-1"}, "--nodes"},
		{[]string{"bench", "pub", "--size", "1"}, "--size"},
		{[]string{"server"}, "--data-dir"},
		{append(node, "--bind", "0.0.0.0:7450"), "--insecure-network"},
		{append(node, "--bind", "127.0.0.1:7450", "--gossip-bind", "0.0.0.0:7451"), "--insecure-network"},
		{append(node, "--bind", "10.0.0.1:7450"), "--insecure-network"},
		{append(node, "--bind", "some-name:7450"), "--insecure-network"},
		{append(node, "--bind", "0.0.0.0:7450", "--insecure-network"), "--advertise"},
		{append(node, "--bind", ":7450", "--insecure-network"), "--advertise"},
		{append(node, "--bind", "0.0.0.0:7450", "--insecure-network", "--advertise", "10.0.0.1:7450"), "--gossip-advertise"},
		{append(node, "--join", "10.0.0.2:7450"), "other machines"},
		{append(node, "--bind", "nonsense"), "--bind nonsense"},
		{append(node, "--join", "garbage"), "--join garbage: write HOST:PORT"},
		{append(node, "--join", "127.0.0.1:7550,:7650"), "--join :7650: write HOST:PORT"},
		{append(node, "--bind", "127.0.0.1:7450", "--gossip-bind", "127.0.0.1:7450"), "both listen on 127.0.0.1:7450"},
		{append(node, "--bootstrap-expect=-1"), "--bootstrap-expect -1: 1 to 9"},
		{append(node, "--bootstrap-expect", "10"), "--bootstrap-expect 10: 1 to 9"},
		{append(node, "--cluster-key", key), "64 hexadecimal digits"},
		{append(node, "--log-store", "paper"), "wal"},
		{append(node, "--log-bytes", "1MiB"), "at least 2.0 MiB"},
		{append(node, "--heartbeat-timeout", "1ms"), "must be at least 5ms"},
		{append(node, "--heartbeat-timeout", "2s"), "no shorter than the first"},
	} {
		o := inProcess(t, "", c.args...)
		if o.code != exit.Usage || !strings.Contains(o.err, c.text) || o.out != "" {
			t.Errorf("%v: want exit code 2 and %q, got %s", c.args, c.text, o)
		}
	}
}

func TestServerAddresses_ThreeMachines_AreAccepted(t *testing.T) {
	for _, s := range []serverCmd{
		{Bind: "127.0.0.1:7450", Join: []string{"127.0.0.1:7550", "localhost:7650"}},
		{Bind: "[::1]:7450"},
		{Bind: "10.0.0.1:7450", Join: []string{"10.0.0.2:7450"}, InsecureNetwork: true},
		{Bind: "0.0.0.0:7450", Advertise: "10.0.0.1:7450", GossipAdvertise: "h1:7451", Join: []string{"h2:7450"}, InsecureNetwork: true},
	} {
		gossip := strings.TrimSuffix(s.Bind, "0") + "1"
		if err := s.checkAddresses(gossip); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestReadKey_HexWithNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(strings.Repeat("0f", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := readKey(path)
	if err != nil || len(key) != 32 || key[31] != 0x0f {
		t.Fatal(key, err)
	}
	if key, err := readKey(""); key != nil || err != nil {
		t.Fatal(key, err)
	}
	if _, err := readKey(path + ".none"); exit.Of(err) != exit.NotFound || !strings.Contains(err.Error(), "no file "+path+".none") {
		t.Fatal(err)
	}
}

func TestTarget_FlagOverContextOverDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.json")
	env := map[string]string{"ONCEQ_CONTEXTS": path}
	a := &app{&console.Console{Getenv: func(k string) string { return env[k] }}}
	check := func(g globals, want string) {
		t.Helper()
		got, err := a.target(&g)
		if err != nil || got.url != want {
			t.Fatalf("%+v talks to %v, %v, want %s", g, got, err, want)
		}
	}
	check(globals{}, defaultURL)
	if err := contexts.Update(path, func(f *contexts.File) error {
		f.Selected = "dev"
		f.Contexts["dev"] = contexts.Context{URL: "d:1"}
		f.Contexts["prod"] = contexts.Context{URL: "p:1"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	check(globals{}, "d:1")
	check(globals{ContextName: "prod"}, "p:1")
	check(globals{ContextName: "prod", URL: "u:1"}, "u:1")
	_, err := a.target(&globals{ContextName: "prd"})
	if exit.Of(err) != exit.NotFound {
		t.Fatal(err)
	}
	delete(env, "ONCEQ_CONTEXTS")
	check(globals{}, defaultURL) // no home, no contexts
}

// Two local clusters at once: the one that ends gives the context back to the one
// that goes on.
func TestSelectDev_IsHandedBackToACluster_ThatStillRuns(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "contexts.json")
	a := &app{Console: &console.Console{Err: io.Discard, Getenv: func(name string) string {
		return map[string]string{"ONCEQ_CONTEXTS": path}[name]
	}}}
	expect := func(dir string) {
		t.Helper()
		if f, err := contexts.Load(path); err != nil || f.Contexts["dev"].Data != dir || f.Selected != "dev" {
			t.Fatalf("%+v, %v, want %s", f, err, dir)
		}
	}
	_, endOne := a.selectDev(l.Addr().String(), "/one")
	_, endTwo := a.selectDev("127.0.0.1:1", "/two")
	expect("/two")
	endTwo()
	expect("/one")
	_, endTwo = a.selectDev("127.0.0.1:1", "/two")
	_, endThree := a.selectDev(l.Addr().String(), "/three")
	endTwo()
	expect("/three") // it is not what the second has written
	endThree()
	expect("/three") // the second does not answer
	endOne()
	expect("/three")
}

func TestContextCommands(t *testing.T) {
	t.Setenv("ONCEQ_CONTEXTS", filepath.Join(t.TempDir(), "c.json"))
	inProcess(t, "", "context", "use", "prod").want(t, exit.NotFound, `no context "prod"`)
	inProcess(t, "", "context", "use", "prod", "--to", "h:1").want(t, exit.OK)
	inProcess(t, "", "context", "use", "dev", "--to", "h:2").want(t, exit.OK)
	inProcess(t, "", "context", "use", "prdo").want(t, exit.NotFound, `did you mean "prod"?`)
	if o := inProcess(t, "", "context", "ls", "-o", "jsonl").want(t, exit.OK); strings.Count(o.out, "\n") != 2 || !strings.Contains(o.out, `"name":"dev","selected":true,"url":"h:2"`) {
		t.Fatal(o)
	}
}

func TestErrorsCommand_ExplainsOffline(t *testing.T) {
	inProcess(t, "", "errors").want(t, exit.OK, "ONCEQ-1001", "ONCEQ-5008")
	inProcess(t, "", "errors", "ONCEQ-2010").want(t, exit.OK, "ONCEQ-2010", "exit code 3", "Why:", "What to do:")
	inProcess(t, "", "errors", "onceq-2010").want(t, exit.OK, "ONCEQ-2010")
	inProcess(t, "", "errors", "2010", "-o", "json").want(t, exit.OK, `"code": "ONCEQ-2010"`)
	inProcess(t, "", "errors", "9999").want(t, exit.NotFound, "no code")
}

func TestDidYouMean(t *testing.T) {
	there := []string{"orders", "payments", "mail"}
	for name, want := range map[string]string{"order": `"orders"`, "ODERS": `"orders"`, "paymnts": `"payments"`, "zebra-crossing": "other advice", "mial": `"mail"`} {
		if got := didYouMean(name, there, "other advice"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %s", name, got, want)
		}
	}
	if got := didYouMean("x", nil, "other advice"); got != "other advice" {
		t.Fatal(got)
	}
}

func TestParseHeaders_OrderAndRepeats(t *testing.T) {
	hs, err := parseHeaders([]string{"a=1", "b=x=y", "a="})
	if err != nil || len(hs) != 3 || hs[1] != (client.Header{Name: "b", Value: "x=y"}) || hs[2] != (client.Header{Name: "a"}) {
		t.Fatal(hs, err)
	}
}

func TestSummary_ReadsLikeASentence(t *testing.T) {
	s := summary{Published: 10_000, PerSecond: 41203.7, P50: 1.9, P99: 6.4, LeaderChanges: 1, Retransmitted: 37}
	want := "10,000 published, 0 duplicates, 41,203/s, p50 1.9 ms p99 6.4 ms, 1 leader change, 37 retransmitted"
	if s.String() != want {
		t.Fatalf("got %q", s.String())
	}
	s.Failed, s.Unknown = 2, 3
	if got := s.String(); !strings.HasSuffix(got, ", 2 NOT STORED, 3 OUTCOME UNKNOWN") {
		t.Fatal(got)
	}
}

func TestDescribe_OutcomesAndTheirCodes(t *testing.T) {
	for _, c := range []struct {
		out  client.Outcome
		text string
		code int
	}{
		{client.Outcome{State: client.Stored, Message: client.MessageID{Queue: "orders", Offset: 17}, Count: 1}, "stored as orders/17", exit.OK},
		{client.Outcome{State: client.Stored, Message: client.MessageID{Queue: "orders", Offset: 17}, Count: 3}, "stored as orders/17 and the 2 after it", exit.OK},
		{client.Outcome{State: client.Never}, "never", exit.NotFound},
		{client.Outcome{State: client.NotStoredSoFar}, "not stored so far", exit.Unknown},
		{client.Outcome{State: client.Unknown, Reason: "session expired"}, "unknown: session expired", exit.Unknown},
	} {
		if _, text, code := describe("s1.2.3", c.out); !strings.HasPrefix(text, c.text) || code != c.code {
			t.Errorf("%+v: %q, exit code %d", c.out, text, code)
		}
	}
}

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		d        destructive
		terminal bool
		answer   string
		ok       bool
		code     int
	}{
		{destructive{Yes: true}, false, "", true, exit.OK},
		{destructive{DryRun: true, Yes: true}, false, "", false, exit.OK},
		{destructive{}, false, "yes\n", false, exit.Usage},
		{destructive{}, true, "yes\n", true, exit.OK},
		{destructive{}, true, " Y \n", true, exit.OK},
		{destructive{}, true, "no\n", false, exit.Failure},
		{destructive{}, true, "\n", false, exit.Failure},
		{destructive{}, true, "", false, exit.Failure},
	} {
		var out strings.Builder
		a := &app{&console.Console{In: strings.NewReader(c.answer), Err: &out, InIsTerminal: c.terminal}}
		ok, err := c.d.confirm(a, "remove everything")
		if ok != c.ok || exit.Of(err) != c.code {
			t.Errorf("%+v: %v, %v", c, ok, err)
		}
		if err == nil && !c.d.Yes && !strings.Contains(out.String(), "remove everything") {
			t.Errorf("%+v does not say what it would do: %q", c, out.String())
		}
	}
}

func TestCanLose(t *testing.T) {
	for _, c := range [][3]int{{3, 3, 1}, {3, 2, 0}, {3, 1, 0}, {5, 5, 2}, {5, 4, 1}, {1, 1, 0}, {4, 4, 1}, {2, 2, 0}, {0, 0, 0}} {
		if got := canLose(c[0], c[1]); got != c[2] {
			t.Errorf("of %d voters with %d up, %d can be lost, want %d", c[0], c[1], got, c[2])
		}
	}
}

func TestStatus_TellsWhatHeldUpANode(t *testing.T) {
	st := summarize("c", []client.NodeReport{{Node: "n1", Status: client.NodeStatus{
		FreezeLast: time.Millisecond, FreezeMax: 2 * time.Millisecond, BodiesStalled: 3 * time.Second,
		AppendP50: 1500 * time.Microsecond, AppendP99: 20 * time.Millisecond,
		SnapshotsTaken: 4, SnapshotsReceived: 5, BodyCompactions: 6, SnapshotDamage: "7.sst",
	}}})
	b, err := json.Marshal(st.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"freeze_ms":1,`, `"freeze_max_ms":2,`, `"bodies_stalled_ms":3000,`, `"append_p50_ms":1.5,`, `"append_p99_ms":20,`, `"snapshots_taken":4,`, `"snapshots_received":5,`,
		`"body_compactions":6,`, `"snapshot_damage":"7.sst"}`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s does not have %s", b, want)
		}
	}
}

func TestStatus_ADamagedSnapshot_IsShown(t *testing.T) {
	var out strings.Builder
	st := summarize("c", []client.NodeReport{{Node: "n1", Status: client.NodeStatus{Node: "n1"}}, {Node: "n2", Status: client.NodeStatus{Node: "n2", SnapshotDamage: "7.sst at offset 9"}}})
	if err := st.write(&app{&console.Console{Out: &out}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "n2 has a damaged snapshot: 7.sst at offset 9") || strings.Contains(out.String(), "n1 has") {
		t.Error(out.String())
	}
}

func TestStatus_NodesThatDisagree_AreFound(t *testing.T) {
	report := func(node string, at, digest uint64) client.NodeReport {
		return client.NodeReport{Node: node, Status: client.NodeStatus{Node: node, DigestIndex: at, Digest: digest}}
	}
	for name, c := range map[string]struct {
		reports []client.NodeReport
		want    bool
	}{
		"equal":                {[]client.NodeReport{report("n1", 5, 7), report("n2", 5, 7)}, false},
		"of different moments": {[]client.NodeReport{report("n1", 5, 7), report("n2", 6, 8)}, false},
		"none yet":             {[]client.NodeReport{report("n1", 0, 0), report("n2", 0, 0)}, false},
		"different":            {[]client.NodeReport{report("n1", 5, 7), report("n2", 6, 8), report("n3", 5, 8)}, true},
	} {
		st := summarize("c", c.reports)
		if a, b, got := st.disagree(); got != c.want || got && (a.Node != "n1" || b.Node != "n3") {
			t.Errorf("%s: %v, %s, %s", name, got, a.Node, b.Node)
		}
	}
}

func TestBudget_OneBodyOfAnySizePasses(t *testing.T) {
	b := newBudget()
	b.take(flightBytesMax * 2)
	passed := make(chan struct{})
	go func() {
		b.take(1)
		close(passed)
	}()
	b.give(flightBytesMax * 2)
	<-passed
	if b.used != 1 {
		t.Fatal(b.used)
	}
}

// Whoever ends a process often tells its group as well, and the same signal comes twice:
// only one that comes later is a second wish, to end at once.
func TestSignals_TheSameOneTwice_IsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, done := make(chan os.Signal, 2), make(chan struct{})
		ended, now := 0, 0
		obeyed := make(chan struct{})
		go func() {
			defer close(obeyed)
			obey(signals, done, func() { ended++ }, func() { now++ })
		}()
		want := func(wantEnded, wantNow int) {
			t.Helper()
			synctest.Wait()
			if ended != wantEnded || now != wantNow {
				t.Fatalf("told to end %d times and to end at once %d times, want %d and %d", ended, now, wantEnded, wantNow)
			}
		}
		want(0, 0)
		signals <- syscall.SIGTERM
		want(1, 0)
		for range 3 {
			time.Sleep(2 * time.Millisecond)
			signals <- syscall.SIGTERM
			want(1, 0)
		}
		time.Sleep(sameSignal)
		signals <- syscall.SIGTERM
		want(1, 1)
		close(done)
		<-obeyed
	})
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// A signal is how a node is asked to end: what goes wrong then is told with its own exit
// code, and is not "interrupted".
func TestServer_ErrorAtItsEnd_IsToldInSpiteOfTheSignal(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	interrupt(errInterrupted)
	for _, c := range []struct {
		err  error
		code int
		says string
	}{
		{nil, exit.OK, ""},
		{errors.New("close the log: a bit was lost"), exit.Failure, "close the log: a bit was lost"},
		{fmt.Errorf("write: %w", syscall.ENOSPC), exit.Unavailable, "make room on the disk of /data"},
	} {
		var said bytes.Buffer
		a := &app{Console: &console.Console{Out: io.Discard, Err: &said, Getenv: os.Getenv}}
		code := a.conclude(ctx, (&serverCmd{DataDir: "/data"}).end(closerFunc(func() error { return c.err })))
		if code != c.code || !strings.Contains(said.String(), c.says) || strings.Contains(said.String(), "interrupted") {
			t.Errorf("%v: exit code %d, want %d and %q: %s", c.err, code, c.code, c.says, &said)
		}
	}
}

// Every command names the flag that has ended it.
func TestTimeout_NobodyAnswers_TheFlagIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the kernel takes connections, and nobody says a word on them
	for _, args := range [][]string{
		{"queue", "ls"}, {"sub", "q"}, {"receive", "q"}, {"queue", "redrive", "q", "--to", "r", "--yes"}, {"pub", "q", "-l"},
		{"backup", filepath.Join(t.TempDir(), "b")},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			inProcess(t, "a\n", append(args, "--url", l.Addr().String(), "--timeout", "300ms")...).want(t, exit.Unavailable, "no answer within 300ms (--timeout)")
		})
	}
}

// A command that only reads has no unknown outcome, also when the leader that it has asked
// loses its majority meanwhile.
func TestReads_NoMajority_AreUnavailable(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	url := strings.TrimPrefix(c.URL(), "onceq://")
	inProcess(t, "", "queue", "create", "q", "--url", url).want(t, exit.OK)
	for _, n := range c.Others(c.WaitLeader()) {
		c.Kill(n)
	}
	for what, args := range map[string][]string{
		"queue list":   {"queue", "ls"},
		"queue show":   {"queue", "show", "q"},
		"peek":         {"queue", "peek", "q"},
		"consumers":    {"queue", "consumers"},
		"message show": {"trace", "q/1"},
		"sessions":     {"session", "ls"},
		"outcome":      {"outcome", "s1.1.1"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			inProcess(t, "", append(args, "--url", url, "--timeout", "5s")...).want(t, exit.Unavailable, what+": nothing was read", "no answer within 5s (--timeout)")
		})
	}
}
