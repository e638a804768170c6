package faultfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Op is a kind of operation that a Rule may be about.
type Op string

// The kinds. OpWrite is also preallocation; OpFsync is of files and of directories;
// OpCreate is a new name of any kind, a link included.
const (
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpFsync    Op = "fsync"
	OpOpen     Op = "open"
	OpCreate   Op = "create"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
)

// Ops are all kinds.
var Ops = []Op{OpRead, OpWrite, OpTruncate, OpFsync, OpOpen, OpCreate, OpRename, OpRemove}

// Rule says which operations fail, and how: each waits for Slow, hangs if Hang is
// set, and fails with Errno unless that is 0.
type Rule struct {
	Ops   []Op   // empty: all
	Match string // a glob; empty: every path
	Skip  int    // so many that fit pass first
	Times int    // so many are hit then; 0: all
	Errno syscall.Errno
	Slow  time.Duration
	Hang  bool
}

// ErrRule is wrapped by the error for a rule that means nothing.
var ErrRule = errors.New("bad rule")

func (r Rule) check() error {
	for _, o := range r.Ops {
		if !slices.Contains(Ops, o) {
			return fmt.Errorf("%w: no operation %q; there are %v", ErrRule, o, Ops)
		}
	}
	if _, err := path.Match(r.Match, ""); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrRule, r.Match, err)
	}
	if r.Errno == 0 && r.Slow <= 0 && !r.Hang {
		return fmt.Errorf("%w: neither an error nor a delay nor a hang", ErrRule)
	}
	return nil
}

// fits says whether the rule is about the operation.
func (r Rule) fits(op Op, name string) bool {
	if len(r.Ops) > 0 && !slices.Contains(r.Ops, op) {
		return false
	}
	if r.Match == "" {
		return true
	}
	// Each end of the path: a test need not know where a node keeps its files.
	for {
		if ok, _ := path.Match(r.Match, name); ok {
			return true
		}
		_, rest, more := strings.Cut(name, "/")
		if !more {
			return false
		}
		name = rest
	}
}

// rules are those in force.
type rules struct {
	mu     sync.Mutex // guards below
	list   []*counted
	hits   map[Op]int // operations that a rule was applied to
	seen   map[Op]int // all operations
	newest string     // the newest operation that a rule was applied to, and its path
	healed chan struct{}
}

type counted struct {
	Rule
	met int // operations that fit
}

func newRules() *rules {
	return &rules{hits: map[Op]int{}, seen: map[Op]int{}, healed: make(chan struct{})}
}

func (s *rules) add(r Rule) error {
	if err := r.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, &counted{Rule: r})
	return nil
}

// heal forgets all rules and lets what hangs go on.
func (s *rules) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
	close(s.healed)
	s.healed = make(chan struct{})
}

// hangLook is how often a hanging operation looks whether its caller was killed:
// the kernel keeps a killed process until its operation is answered.
const hangLook = 20 * time.Millisecond

// apply makes an operation wait and returns how it fails, 0 if it does not. gone
// tells that nobody waits for the answer any more.
func (s *rules) apply(op Op, name string, gone func() bool) syscall.Errno {
	s.mu.Lock()
	s.seen[op]++
	var errno syscall.Errno
	var slow time.Duration
	hang := false
	for _, r := range s.list {
		if !r.fits(op, name) {
			continue
		}
		r.met++
		if r.met <= r.Skip || r.Times > 0 && r.met > r.Skip+r.Times {
			continue
		}
		s.hits[op]++
		s.newest = string(op) + " " + name
		slow = max(slow, r.Slow)
		hang = hang || r.Hang
		if errno == 0 {
			errno = r.Errno
		}
	}
	healed := s.healed
	s.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow)
	}
	if hang {
		tick := time.NewTicker(hangLook)
		defer tick.Stop()
		for {
			select {
			case <-healed:
				return errno
			case <-tick.C:
				if gone() {
					return syscall.EINTR
				}
			}
		}
	}
	return errno
}

// newestHit returns the newest operation that a rule was applied to.
func (s *rules) newestHit() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// counts returns how many operations there were, and how many a rule was applied
// to.
func (s *rules) counts() (seen, hits map[Op]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, hits = map[Op]int{}, map[Op]int{}
	for o, n := range s.seen {
		seen[o] = n
	}
	for o, n := range s.hits {
		hits[o] = n
	}
	return seen, hits
}
