package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Writer numbers events and writes them as lines. It is safe for concurrent
// use: the numbers are the order in which the harness learned of things.
type Writer struct {
	start  time.Time
	atOnce bool // each line is written when it is there

	mu  sync.Mutex // guards what follows
	out *bufio.Writer
	n   int
	err error
}

// NewWriter writes to w. Time starts now.
func NewWriter(w io.Writer) *Writer {
	return &Writer{start: time.Now(), out: bufio.NewWriterSize(w, 1<<16)}
}

// NewWriterSince writes for a process beside that of the run, whose time began at
// start: each line at once, since the process may be stopped or killed after it.
func NewWriterSince(w io.Writer, start time.Time) *Writer {
	return &Writer{start: start, atOnce: true, out: bufio.NewWriterSize(w, 1<<16)}
}

// Now is the time of the run.
func (w *Writer) Now() int64 { return int64(time.Since(w.start)) }

// Since is t as a time of the run.
func (w *Writer) Since(t time.Time) int64 { return int64(t.Sub(w.start)) }

// Add writes e and returns its number.
func (w *Writer) Add(e Event) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.I = w.n
	w.n++
	b, err := json.Marshal(e)
	if err == nil {
		_, err = w.out.Write(append(b, '\n'))
	}
	if err == nil && w.atOnce {
		err = w.out.Flush()
	}
	if w.err == nil {
		w.err = err
	}
	return e.I
}

// Invoke writes that e is asked for now, and returns it for Complete.
func (w *Writer) Invoke(e Event) Event {
	e.Type, e.T0, e.T1, e.Of = Invoke, w.Now(), 0, -1
	e.Of = w.Add(e)
	return e
}

// Complete writes the outcome, at t1 = now, of what Invoke returned.
func (w *Writer) Complete(e Event, t Type) {
	e.Type, e.T1 = t, w.Now()
	w.Add(e)
}

// Flush writes out what is buffered and returns the first error there was.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.out.Flush())
}

// Read reads a whole history. A last line that is cut off is ignored, since a
// harness may be killed.
func Read(r io.Reader) ([]Event, error) {
	var all []Event
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		all = append(all, e)
	}
}
