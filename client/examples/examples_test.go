package examples_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"onceq/client/onceqtest"
)

// bound is how long anything that must happen may take.
const bound = 2 * time.Minute

// process is one of the programs, with its lines of output.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	err   *strings.Builder // read after its end
}

func start(t *testing.T, url, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), lines: make(chan string, 10_000), err: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), "ONCEQ_URL="+url)
	p.cmd.Stderr = p.err
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// line returns the next line of output.
func (p *process) line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%s has ended: %v", p.cmd.Path, p.cmd.Wait())
		}
		return l
	case <-time.After(bound):
		p.t.Fatalf("%s says nothing", p.cmd.Path)
	}
	return ""
}

// end waits until the program has ended and returns what it said after the lines
// that were read.
func (p *process) end() (lines []string) {
	p.t.Helper()
	for l := range p.lines {
		lines = append(lines, l)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v: %s", p.cmd.Path, err, p.err)
	}
	return lines
}

// Orders are entered, some twice, while the leader and the payment service are
// killed: every order is charged once.
func TestOrdersAndPayments(t *testing.T) {
	const orders = 60
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./orders", "./payments").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cluster := onceqtest.Start(t, 3)
	ledger := filepath.Join(t.TempDir(), "payments.db")

	shop := start(t, cluster.URL(), filepath.Join(bin, "orders"))
	till := start(t, cluster.URL(), filepath.Join(bin, "payments"), "--db", ledger)
	charged := map[string]int{}
	note := func(lines ...string) {
		for _, l := range lines {
			charged[strings.Fields(l)[0]]++
		}
	}
	enter := func(i int) {
		t.Helper()
		fmt.Fprintf(shop.in, "order-%d ann %d\n", i, 100+i)
		if l := shop.line(); !strings.HasPrefix(l, fmt.Sprintf("order-%d stored as orders/", i)) {
			t.Errorf("the answer to order %d: %s", i, l)
		}
	}
	fmt.Fprintln(shop.in, "no order")
	for i := range orders {
		switch i {
		case orders / 3:
			cluster.Restart(cluster.KillLeader())
		case 2 * orders / 3:
			note(till.line()) // it has begun
			_ = till.cmd.Process.Kill()
			for l := range till.lines {
				note(l)
			}
			_ = till.cmd.Wait()
			till = start(t, cluster.URL(), filepath.Join(bin, "payments"), "--db", ledger)
		}
		enter(i)
		if i%5 == 0 {
			enter(i) // a clerk who is not sure
		}
	}
	for len(charged) < orders-4 { // what the killed one had in hand may be charged and not printed
		note(till.line())
	}
	shop.in.Close()
	shop.end()
	if !strings.Contains(shop.err.String(), `"no order": write`) {
		t.Errorf("a bad line was answered %q", shop.err)
	}

	c := cluster.Client()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for done, deadline := false, time.After(bound); !done; {
		q, err := c.Admin().Queue(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		if done = q.Counts.Acked == orders+orders/5; !done {
			select {
			case <-look.C:
			case <-deadline:
				t.Fatalf("%d messages acked, want %d", q.Counts.Acked, orders+orders/5)
			}
		}
	}
	_ = till.cmd.Process.Signal(syscall.SIGTERM)
	note(till.end()...)

	// One line more for an order says only that the till died before it noted what
	// the bank had done; four at once is what it handles.
	again := 0
	for id, n := range charged {
		if again += n - 1; n > 2 {
			t.Errorf("%s was charged %d times", id, n)
		}
	}
	if again > 4 {
		t.Errorf("%d orders were handed to the bank twice, one crash explains 4", again)
	}
	db, err := bbolt.Open(ledger, 0o600, &bbolt.Options{Timeout: bound})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bbolt.Tx) error {
		bookings := tx.Bucket([]byte("bank"))
		if n := bookings.Stats().KeyN; n != orders {
			t.Errorf("the bank has %d bookings, want %d", n, orders)
		}
		for i := range orders {
			if b := string(bookings.Get(fmt.Appendf(nil, "order-%d", i))); b != fmt.Sprint("ann ", 100+i) {
				t.Errorf("order %d is booked as %q", i, b)
			}
		}
		return nil
	})
}
