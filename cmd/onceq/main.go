// Command onceq is the whole product in one binary: a node (`onceq server`), a
// local cluster (`onceq dev`), a demonstration that checks itself (`onceq
// demo`) and the tools for the command line. It holds flags and wiring; what
// is longer than that is in packages below internal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

func main() {
	// Without this a write to a closed pipe on standard output would end the
	// process by a signal, before `sub` could keep the message from being acked.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := withSignals(context.Background())
	code := run(ctx, os.Args[1:], console.Standard())
	stop()
	os.Exit(code)
}

// errInterrupted is the cause of a context that a signal has ended.
var errInterrupted = errors.New("interrupted")

// sameSignal is how soon after the first signal another one is still the same wish to
// end. Many who end a process tell its group as well, and it gets each signal twice, a
// few milliseconds apart: coreutils' timeout, a terminal under a shell that passes
// signals on. Nobody who sees that a process goes on asks again as fast as that.
const sameSignal = 500 * time.Millisecond

// withSignals ends the context at the first SIGINT or SIGTERM, and the process
// at the second.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		obey(signals, done, func() { cancel(errInterrupted) }, func() { os.Exit(exit.Interrupted) })
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	}
}

// obey calls end at the first signal and endNow at the second, until done.
func obey(signals <-chan os.Signal, done <-chan struct{}, end, endNow func()) {
	var first time.Time
	for {
		select {
		case <-signals:
		case <-done:
			return
		}
		switch {
		case first.IsZero():
			first = time.Now()
			end()
		case time.Since(first) >= sameSignal:
			endNow()
			return
		}
	}
}

const description = `A replicated message queue that stores each message once.

Start with:  onceq demo

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable
(safe to retry), 7 outcome unknown (prints the id to look up), 8 a check failed,
130 interrupted.`

// exited carries the exit code out of kong, which asks for an exit after help.
type exited int

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, con *console.Console) (code int) {
	defer func() {
		if r := recover(); r != nil {
			c, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(c)
		}
	}()
	a := &app{Console: con}
	var root cli
	parser, err := kong.New(&root,
		kong.Name("onceq"),
		kong.Description(description),
		kong.Writers(con.Out, con.Err),
		kong.Exit(func(c int) { panic(exited(c)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(flagHelp),
		kong.ExplicitGroups(helpGroups),
		kong.Vars{"version": versionText()},
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a, &root.globals),
	)
	if err != nil {
		panic(err) // the structs below are wrong: no input can cause this
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if unread(err) {
		return exit.Failure // help
	}
	if err != nil {
		text := unitMissing.ReplaceAllString(err.Error(), "a unit is missing: write ${1}s")
		var wrong *kong.ParseError
		if errors.As(err, &wrong) && wrong.Context != nil {
			a.Note("error %s\n  see  %s --help", text, commandOf(wrong.Context))
		} else {
			a.Note("error %s", text)
		}
		return exit.Usage
	}
	if root.Timeout <= 0 {
		a.Note("error --timeout %v: must be above 0", root.Timeout)
		return exit.Usage
	}
	return a.conclude(ctx, k.Run())
}

// conclude tells what a command came to and returns the exit code. Of one that a signal
// has ended only what matters whatever ended it is told.
func (a *app) conclude(ctx context.Context, err error) int {
	told := (*lastWord)(nil)
	if err != nil && context.Cause(ctx) == errInterrupted && exit.Of(err) != exit.Unknown && exit.Of(err) != exit.CheckFailed && !errors.As(err, &told) {
		a.Note("interrupted")
		return exit.Interrupted
	}
	return a.report(err)
}

// unitMissing is what package time says of a number alone.
var unitMissing = regexp.MustCompile(`time: missing unit in duration "?([0-9.]+)"?`)

// commandOf is the command that was recognised, as it can be typed: without its
// <arguments>, which a shell would take for redirections.
func commandOf(k *kong.Context) string {
	words := []string{"onceq"}
	for _, w := range strings.Fields(k.Command()) {
		if !strings.Contains(w, "<") {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// report tells people what went wrong and returns the exit code for it.
func (a *app) report(err error) int {
	if err == nil {
		return exit.OK
	}
	var quiet *silent
	if !errors.As(err, &quiet) && !unread(err) {
		a.Note("error %s", err)
		var e *exit.Error
		if errors.As(err, &e) && e.Hint != "" {
			a.Note("  %s", strings.ReplaceAll(e.Hint, "\n", "\n  "))
		}
	}
	return exit.Of(err)
}

// unread says that err is no more than that nobody reads standard output to its
// end, as in  onceq queue ls | head -1 : nothing to tell. A command whose output
// stands for something, such as an ack, says in its error what is lost.
func unread(err error) bool {
	var parsing *kong.ParseError
	if errors.As(err, &parsing) {
		err = parsing.Unwrap()
	}
	var p *fs.PathError
	return errors.As(err, &p) && p.Path == os.Stdout.Name() && errors.Is(p.Err, syscall.EPIPE) && err.Error() == p.Error()
}

// silent is an error of which everything has been said already.
type silent struct{ code int }

func (s *silent) Error() string { return fmt.Sprintf("exit code %d", s.code) }
func (s *silent) Unwrap() error { return &exit.Error{Code: s.code, Err: errors.New("see above")} }
