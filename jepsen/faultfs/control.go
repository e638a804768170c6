package faultfs

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errnos are the errors that a rule may bring, by their names in commands.
var errnos = map[string]syscall.Errno{
	"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EDQUOT": syscall.EDQUOT, "EROFS": syscall.EROFS, "EMFILE": syscall.EMFILE,
}

// lineBytesMax bounds one command.
const lineBytesMax = 64 << 10

// Control takes commands on a unix socket; doc.go lists them. Each line is answered
// by one that begins with "ok" or "error".
type Control struct {
	fs   *FS
	l    net.Listener
	done sync.WaitGroup

	mu    sync.Mutex // guards below
	conns map[net.Conn]bool
	ended bool
}

// Listen makes the socket.
func (s *FS) Listen(path string) (*Control, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	c := &Control{fs: s, l: l, conns: map[net.Conn]bool{}}
	c.done.Go(c.accept)
	return c, nil
}

func (c *Control) accept() {
	for {
		conn, err := c.l.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		if c.ended {
			conn.Close()
		} else {
			c.conns[conn] = true
			c.done.Go(func() { c.serve(conn) })
		}
		c.mu.Unlock()
	}
}

func (c *Control) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		text, err := c.fs.Do(lines.Text())
		answer := strings.TrimSpace("ok " + text)
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

// Close ends the socket and its connections.
func (c *Control) Close() error {
	c.mu.Lock()
	c.ended = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	err := c.l.Close()
	c.done.Wait()
	return err
}

// ErrCommand is wrapped by the error for a command that is not understood.
var ErrCommand = errors.New("bad command")

// Do runs one command and returns what it has to say.
func (s *FS) Do(line string) (string, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", fmt.Errorf("%w: it is empty", ErrCommand)
	}
	switch verb, args := words[0], words[1:]; {
	case verb == "cut":
		l, err := parseLoss(args)
		if err != nil {
			return "", err
		}
		return "", s.Cut(l)
	case verb == "plan" && len(args) > 0:
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 0 {
			return "", fmt.Errorf("%w: plan %q: it is no count", ErrCommand, args[0])
		}
		l, err := parseLoss(args[1:])
		if err != nil {
			return "", err
		}
		s.CutBefore(n, l)
		return "", nil
	case verb == "planned" && len(args) == 0:
		return s.CutAt(), nil
	case verb == "on" && len(args) == 0:
		return "", s.PowerOn()
	case verb == "heal" && len(args) == 0:
		s.Heal()
		return "", nil
	case verb == "stats" && len(args) == 0:
		return s.statsText(), nil
	case verb == "hit" && len(args) == 0:
		return s.Hit(), nil
	case verb == "where" && len(args) == 0:
		names, files := s.Pending()
		return fmt.Sprintf("%d files, %d names: %s", files, len(names), strings.Join(names, " ")), nil
	case verb == "fail" || verb == "slow" || verb == "hang":
		r, err := parseRule(verb, args)
		if err != nil {
			return "", err
		}
		return "", s.Add(r)
	}
	return "", fmt.Errorf("%w: %q: there are cut, plan, planned, on, fail, slow, hang, heal, stats, hit and where", ErrCommand, line)
}

func (s *FS) statsText() string {
	seen, hits := s.Stats()
	var parts []string
	for _, o := range Ops {
		parts = append(parts, fmt.Sprintf("%s=%d/%d", o, hits[o], seen[o]))
	}
	return strings.Join(parts, " ")
}

func parseLoss(args []string) (Loss, error) {
	switch {
	case len(args) == 0:
		return Loss{}, nil
	case len(args) == 1 && args[0] == "keep":
		return Loss{Keep: true}, nil
	case len(args) == 2 && args[0] == "tear":
		seed, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return Loss{}, fmt.Errorf("%w: seed %q: %w", ErrCommand, args[1], err)
		}
		return Loss{Tear: true, Seed: seed}, nil
	}
	return Loss{}, fmt.Errorf("%w: what a cut loses: nothing more, keep, or tear SEED, not %q", ErrCommand, strings.Join(args, " "))
}

func parseRule(verb string, args []string) (r Rule, err error) {
	want := map[string]int{"fail": 2, "slow": 2, "hang": 1}[verb]
	if len(args) < want || (len(args)-want)%2 != 0 {
		return r, fmt.Errorf("%w: %s %s: words are missing", ErrCommand, verb, strings.Join(args, " "))
	}
	if args[0] != "all" {
		for _, o := range strings.Split(args[0], ",") {
			r.Ops = append(r.Ops, Op(o))
		}
	}
	switch verb {
	case "fail":
		errno, ok := errnos[args[1]]
		if !ok {
			return r, fmt.Errorf("%w: no error %q; there are %v", ErrCommand, args[1], errnoNames())
		}
		r.Errno = errno
	case "slow":
		if r.Slow, err = time.ParseDuration(args[1]); err != nil {
			return r, fmt.Errorf("%w: %w", ErrCommand, err)
		}
	case "hang":
		r.Hang = true
	}
	for rest := args[want:]; len(rest) > 0; rest = rest[2:] {
		switch rest[0] {
		case "match":
			r.Match = rest[1]
		case "skip":
			r.Skip, err = strconv.Atoi(rest[1])
		case "times":
			r.Times, err = strconv.Atoi(rest[1])
		default:
			err = errors.New("want match, skip or times")
		}
		if r.Skip < 0 || r.Times < 0 {
			err = errors.New("it is negative")
		}
		if err != nil {
			return r, fmt.Errorf("%w: %s %s: %w", ErrCommand, rest[0], rest[1], err)
		}
	}
	return r, nil
}

func errnoNames() []string {
	var names []string
	for n := range errnos {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
