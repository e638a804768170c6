package devcluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/onceqtest"
	"onceq/cmd/onceq/internal/exit"
	"onceq/jepsen/proc/proctest"
)

// taken listens on a free port until the test ends.
func taken(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFreePorts_AreFreeAndDifferent(t *testing.T) {
	ps, err := freePorts(5)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ps {
		for _, port := range []int{p.Client, p.Gossip} {
			if seen[port] {
				t.Fatalf("port %d twice in %v", port, ps)
			}
			seen[port] = true
			if port >= ephemeralLow() && ephemeralLow() > 11_000 {
				t.Errorf("port %d is one that the system gives away", port)
			}
		}
	}
	if err := takenError(ps); err != nil {
		t.Fatal(err)
	}
}

func TestChoosePorts_NamedPortThatIsTaken_IsAConflict(t *testing.T) {
	port := taken(t)
	_, err := choosePorts(port, 1, false)
	if exit.Of(err) != exit.Conflict || !strings.Contains(err.Error(), strconv.Itoa(port)) {
		t.Fatal(err)
	}
	if _, err := choosePorts(70_000, 1, false); exit.Of(err) != exit.Usage {
		t.Fatal(err)
	}
}

func TestTakenError_GossipNeedsUDPToo(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := c.LocalAddr().(*net.UDPAddr).Port
	free, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := takenError([]Ports{{free[0].Client, port}}); exit.Of(err) != exit.Conflict {
		t.Fatal(err)
	}
}

func TestOpen_PortsAreChosenOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	cfg := Config{Binary: "/bin/true", Dir: dir, Nodes: 3, AnyPorts: true}
	open := func(cfg Config) *Cluster {
		t.Helper()
		c, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open(cfg)
	url := c.URL()

	_, err := Open(cfg)
	if exit.Of(err) != exit.Conflict || !strings.Contains(err.Error(), "running") {
		t.Fatalf("a second cluster in the same directory: %v", err)
	}
	c.Close(t.Context())
	c.Close(t.Context()) // twice is fine

	c = open(Config{Binary: "/bin/true", Dir: dir})
	if c.URL() != url || len(c.Nodes()) != 3 {
		t.Fatalf("the ports moved from %s to %s", url, c.URL())
	}
	c.Close(t.Context())

	if _, err := Open(Config{Binary: "/bin/true", Dir: dir, Nodes: 5}); exit.Of(err) != exit.Conflict {
		t.Fatalf("another number of nodes: %v", err)
	}
}

func TestOpen_KeptPortThatIsTaken_IsNamed(t *testing.T) {
	dir := t.TempDir()
	port := taken(t)
	l := layout{Version: layoutVersion, Nodes: []Ports{{port, port + 1}}}
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Binary: "/bin/true", Dir: dir}); exit.Of(err) != exit.Conflict || !strings.Contains(err.Error(), strconv.Itoa(port)) {
		t.Fatal(err)
	}
	free, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Binary: "/bin/true", Dir: dir, Port: free[0].Client})
	if err != nil {
		t.Fatalf("a named port moves the cluster: %v", err)
	}
	c.Close(t.Context())
	if l, err = openLayout(dir, 0, 0, false); err != nil || l.Nodes[0] != free[0] {
		t.Fatal(l, err)
	}
}

func TestOpen_UnknownLayout_IsRefused(t *testing.T) {
	for _, text := range []string{"{", `{"version":99,"nodes":[{"client":1,"gossip":2}]}`, `{"version":1}`} {
		dir := t.TempDir()
		if err := os.WriteFile(layoutPath(dir), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Binary: "/bin/true", Dir: dir}); err == nil || !strings.Contains(err.Error(), "cluster.json") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Between two leaders there is none: who needs one waits for it.
func TestWaitLeader_NobodyLeads_WaitsForOne(t *testing.T) {
	cluster := onceqtest.Start(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := cluster.Client()
	want, err := WaitLeader(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	cluster.KillLeader()
	if _, err := LeaderOf(ctx, c); exit.Of(err) != exit.Unavailable {
		t.Fatalf("the only node is dead: %v", err)
	}
	short, end := context.WithCancel(ctx)
	end()
	if _, err := WaitLeader(short, c); err == nil {
		t.Fatal("somebody leads a dead cluster")
	}
	type answer struct {
		leader string
		err    error
	}
	waited := make(chan answer, 1)
	go func() {
		leader, err := WaitLeader(ctx, c)
		waited <- answer{leader, err}
	}()
	cluster.Restart()
	if got := <-waited; got.err != nil || got.leader != want {
		t.Errorf("%q leads, %v; want %q", got.leader, got.err, want)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := WaitLeader(ctx, c); !errors.Is(err, client.ErrClosed) {
		t.Errorf("asked by a closed client: %v", err)
	}
}

// script makes a cluster whose nodes are a shell script.
func script(t *testing.T, text string, onEnd func(Info, string)) *Cluster {
	t.Helper()
	c, err := Open(Config{Binary: proctest.Program(t, text), Dir: filepath.Join(t.TempDir(), "data"), Nodes: 2, AnyPorts: true, OnEnd: onEnd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(t.Context()) })
	return c
}

func states(c *Cluster) (s []State) {
	for _, n := range c.Nodes() {
		s = append(s, n.State)
	}
	return s
}

func TestNode_Verbs(t *testing.T) {
	c := script(t, "exec cat", nil) // ends at the end of its standard input
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	conflict := func(err error) {
		t.Helper()
		if exit.Of(err) != exit.Conflict {
			t.Fatalf("%v, want a conflict", err)
		}
	}
	conflict(c.Kill("n1"))
	must(c.StartAll())
	conflict(c.Start("n1"))
	conflict(c.Resume("n1"))
	must(c.Pause("n1"))
	conflict(c.Pause("n1"))
	must(c.Resume("n1"))
	must(c.Pause("n1"))
	must(c.Stop(t.Context(), "n1")) // a paused one too
	must(c.Pause("n2"))
	must(c.Kill("n2"))
	if got := states(c); got[0] != Stopped || got[1] != Killed {
		t.Fatal(got)
	}
	must(c.Start("n1"))
	if n := c.Nodes()[0]; n.State != Running || n.Pid == 0 {
		t.Fatal(n)
	}
	if err := c.Start("n9"); exit.Of(err) != exit.NotFound || !strings.Contains(err.Error(), "n1, n2") {
		t.Fatal(err)
	}
}

func TestNode_EndsByItself_IsReportedAndNotStartedAgain(t *testing.T) {
	ended := make(chan Info, 2)
	logs := make(chan string, 2)
	c := script(t, "echo the last words; exit 3", func(n Info, log string) { ended <- n; logs <- log })
	if err := c.Start("n1"); err != nil {
		t.Fatal(err)
	}
	if n := <-ended; n.Name != "n1" || n.State != Ended || !strings.Contains(n.Detail, "exit status 3") {
		t.Fatal(n)
	}
	if log := <-logs; log != "the last words" {
		t.Fatal(log)
	}
	if got := states(c); got[0] != Ended {
		t.Fatal(got)
	}
	if _, err := c.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "n1 ended while starting") {
		t.Fatal(err)
	}
}
