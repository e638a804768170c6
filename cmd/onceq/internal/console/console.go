// Package console is how the commands talk to people and to other programs:
// data goes to Out, everything else to Err, and nothing is drawn over again
// where nobody watches.
package console

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// Console is where a command reads and writes.
type Console struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string
	// ErrIsTerminal says that somebody watches Err, so that a line may be drawn
	// over again; Color that Out may be coloured.
	ErrIsTerminal bool
	InIsTerminal  bool
	Color         bool

	mu   sync.Mutex // guards open and whole lines on Err
	open int        // width of the progress line that is on the screen, 0: none
}

// Standard is the console of this process.
func Standard() *Console {
	out := term.IsTerminal(int(os.Stdout.Fd()))
	return &Console{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		ErrIsTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		InIsTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		Color:         out && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

// Note writes a line for people to Err.
func (c *Console) Note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wipe()
	fmt.Fprintf(c.Err, format+"\n", args...)
}

// Progress shows how far a long job is: one line drawn over again on a
// terminal, and nothing elsewhere (callers write plain lines there when they
// have news, see Watched).
func (c *Console) Progress(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ErrIsTerminal {
		return
	}
	line := fmt.Sprintf(format, args...)
	if width, _, err := term.GetSize(2); err == nil && width > 1 && len(line) >= width {
		line = line[:width-1] // a wrapped line cannot be drawn over
	}
	c.wipe()
	fmt.Fprint(c.Err, line)
	c.open = len(line)
}

// Watched says whether Progress shows anything.
func (c *Console) Watched() bool { return c.ErrIsTerminal }

// Done removes the progress line.
func (c *Console) Done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wipe()
}

func (c *Console) wipe() {
	if c.open > 0 {
		fmt.Fprint(c.Err, "\r\x1b[K")
		c.open = 0
	}
}

// Style is how a word may be shown.
type Style string

// The styles, as SGR parameters.
const (
	Bold  Style = "1"
	Red   Style = "31"
	Green Style = "32"
)

// Paint colours s where colours are wanted.
func (c *Console) Paint(s string, style Style) string {
	if !c.Color {
		return s
	}
	return "\x1b[" + string(style) + "m" + s + "\x1b[0m"
}
