package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"onceq/client"
	obox "onceq/client/outbox"
)

// boxJob is what the process of an outbox is to do.
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
			n.ids[e.Number] = idOfBizID(e.Messages[0].BizID)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := obox.Open(job.File, job.Queue, obox.WithURL(job.URL, client.WithDialer(dialVia(job.Via)), client.WithLabel(job.Label)),
		obox.WithName(job.Name), obox.WithMaxInFlight(inFlightMax), obox.WithResults(n.told))
	if err != nil {
		return err
	}
	defer b.Close()
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		id := asked.Text()
		number, err := b.Publish(context.Background(), content(id))
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
type box = child[saying]

func startBox(job boxJob) (*box, error) {
	return startChild[saying](childJob{Outbox: &job}, 2*outboxAskedMax)
}
