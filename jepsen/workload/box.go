package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"onceq/client"
	obox "onceq/client/outbox"
)

// boxEnv makes this program, started again, the process of an outbox.
const boxEnv = "ONCEQ_JEPSEN_OUTBOX"

// boxJob is what that process is to do.
type boxJob struct {
	File, Queue, URL, Name, Label string
	Via                           map[string]string // where to dial for the address of a node
	Flush                         time.Duration     // how long it may take to empty the outbox when nothing more is asked for
}

// saying is a line of it: a message is kept, stored or held.
type saying struct {
	ID        string `json:"id"`
	Kept      bool   `json:"kept,omitempty"`
	Held      string `json:"held,omitempty"`
	Offset    uint64 `json:"offset,omitempty"`
	Lane      int    `json:"lane,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"`
	Attempts  int    `json:"attempts,omitempty"`
	Inner     string `json:"inner,omitempty"`
}

// Box runs the process of an outbox if this process is to be one, and says so. A
// program that runs workloads calls it before anything else.
func Box() bool {
	text := os.Getenv(boxEnv)
	if text == "" {
		return false
	}
	var job boxJob
	err := json.Unmarshal([]byte(text), &job)
	if err == nil {
		err = runBox(job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// names are the ids of entries by number, and results that came before their id was
// known.
type names struct {
	mu    sync.Mutex // guards what follows, and writing
	ids   map[obox.Number]string
	early map[obox.Number]obox.Result
}

func (n *names) say(s saying) {
	b, _ := json.Marshal(s)
	_, _ = os.Stdout.Write(append(b, '\n')) // one write: a line is there whole or not at all
}

func (n *names) kept(number obox.Number, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.say(saying{ID: id, Kept: true})
	n.ids[number] = id
	if r, ok := n.early[number]; ok {
		delete(n.early, number)
		n.result(id, r)
	}
}

func (n *names) told(r obox.Result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, ok := n.ids[r.Number]; ok {
		n.result(id, r)
	} else {
		n.early[r.Number] = r
	}
}

func (n *names) result(id string, r obox.Result) {
	delete(n.ids, r.Number)
	s := saying{ID: id, Inner: r.Receipt.ID.Short()}
	if r.Err != nil {
		s.Held = r.Err.Error()
	} else {
		s.Offset, s.Lane, s.Duplicate, s.Attempts = r.Receipt.Message.Offset, int(r.Receipt.Message.Lane), r.Receipt.Duplicate, r.Receipt.Attempts
	}
	n.say(s)
}

// runBox publishes each id that it reads, one after the other, until there is no
// more; then it empties the outbox.
func runBox(job boxJob) error {
	n := &names{ids: map[obox.Number]string{}, early: map[obox.Number]obox.Result{}}
	if f, err := obox.OpenFile(job.File, true); err == nil {
		left, err := f.List(0, 1_000_000)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		for _, e := range left {
			n.ids[e.Number] = e.Messages[0].BizID
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if via, ok := job.Via[address]; ok {
			address = via
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	b, err := obox.Open(job.File, job.Queue, obox.WithURL(job.URL, client.WithDialer(dial), client.WithLabel(job.Label)),
		obox.WithName(job.Name), obox.WithMaxInFlight(inFlightMax), obox.WithResults(n.told))
	if err != nil {
		return err
	}
	defer b.Close()
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		id := asked.Text()
		number, err := b.Publish(context.Background(), client.Message{Body: body(id), BizID: id})
		if err != nil {
			return fmt.Errorf("publish %s: %w", id, err)
		}
		n.kept(number, id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), job.Flush)
	defer cancel()
	if err := b.Flush(ctx); err != nil {
		return fmt.Errorf("%w: %+v", err, b.Stats())
	}
	return b.Close()
}

// box is such a process, as its parent sees it.
type box struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	asks   chan string
	closed bool // asks is
	writer sync.WaitGroup
	said   chan saying // closed at its end
	errors strings.Builder
}

func startBox(job boxJob) (*box, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	b := &box{cmd: exec.Command(self), asks: make(chan string, 2*outboxAskedMax), said: make(chan saying, 4096)}
	b.cmd.Env = append(os.Environ(), boxEnv+"="+string(env))
	b.cmd.Stderr = &b.errors
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	b.writer.Go(func() {
		defer b.stdin.Close()
		for id := range b.asks {
			if _, err := io.WriteString(b.stdin, id+"\n"); err != nil {
				for range b.asks { // it has died: nobody takes the rest
				}
			}
		}
	})
	go func() {
		defer close(b.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s saying
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				b.said <- s
			}
		}
	}()
	return b, nil
}

// ask never blocks: what is asked for at once is bounded by the caller.
func (b *box) ask(id string) { b.asks <- id }

// noMore says that nothing more is asked for.
func (b *box) noMore() {
	if !b.closed {
		b.closed = true
		close(b.asks)
	}
}

func (b *box) kill() { _ = b.cmd.Process.Kill() }

// end waits for the process, whose words have all been heard, and says how it ended:
// "" when in order.
func (b *box) end() string {
	b.noMore()
	err := b.cmd.Wait()
	b.writer.Wait()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error() + " " + b.errors.String())
}
