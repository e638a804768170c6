package cluster

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/cluster/raftlog"
	"onceq/jepsen/faultdisk"
)

var stepsStride = flag.Int("steps.stride", 0, "try each so many-th moment of the tests that break a disk between two steps; 0: few enough for every day")

// stepsBound is how long anything that must happen may take.
const stepsBound = 60 * time.Second

// stepped is a directory on a faulty disk that steppers work on, one after the
// other, and what they have said to be durable.
type stepped struct {
	t            *testing.T
	dir          string
	disk         *faultdisk.Disk // where dir is, if it is on a faulty one
	kind, bodies string

	index  uint64 // of the last entry that was stored
	term   uint64 // of the last vote
	digest string // at index
	snap   uint64 // of the last snapshot

	installs bool // a life has an install in it
	// comes and its digest are of a snapshot of somebody ahead that is being installed.
	comes       uint64
	comesDigest string
}

// faultBinary is the binary of faulty disks, built once and removed at the end.
var faultBinary struct {
	once sync.Once
	path string
	err  error
}

func buildFaultBinary() {
	dir, err := os.MkdirTemp("", "onceq-faultfs-")
	if err != nil {
		faultBinary.err = err
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*stepsBound)
	defer cancel()
	faultBinary.path = filepath.Join(dir, "faultfs")
	faultBinary.err = faultdisk.Build(ctx, faultBinary.path)
}

// newFaultDisk mounts a faulty disk. It is gone when the test ends.
func newFaultDisk(t *testing.T) *faultdisk.Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, to mount a file system")
	}
	faultBinary.once.Do(buildFaultBinary)
	if faultBinary.err != nil {
		t.Fatal(faultBinary.err)
	}
	dir, err := os.MkdirTemp("", "onceq-disk-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	d, err := faultdisk.Start(faultBinary.path, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

func newStepped(t *testing.T, kind, bodies string) *stepped {
	d := newFaultDisk(t)
	return &stepped{t: t, dir: d.Dir, disk: d, kind: kind, bodies: bodies, installs: true}
}

// stepperLife is one stepper's.
type stepperLife struct {
	cmd   *exec.Cmd
	in    io.Closer
	lines *bufio.Scanner
	said  []string
}

func (s *stepped) start() (*stepperLife, io.WriteCloser) {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", stepperEnv, s.dir, s.kind, s.bodies), "TMPDIR="+s.t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return &stepperLife{cmd: cmd, in: in, lines: bufio.NewScanner(out)}, in
}

// until reads what the stepper says, up to a line that begins with word, and notes
// what is durable.
func (s *stepped) until(l *stepperLife, word string) bool {
	s.t.Helper()
	for l.lines.Scan() {
		line := l.lines.Text()
		l.said = append(l.said, line)
		f := strings.Fields(line)
		number := func(i int) uint64 {
			n, err := strconv.ParseUint(f[i], 10, 64)
			if err != nil {
				s.t.Fatalf("a stepper said %q", line)
			}
			return n
		}
		switch f[0] {
		case "stored":
			s.index, s.digest = number(1), f[2]
		case "voted":
			s.term = number(1)
		case "snapshot":
			s.snap = number(1)
		case "installing":
			s.comes, s.comesDigest = number(1), f[2]
		case "installed":
			s.index, s.digest, s.snap, s.comes = s.comes, s.comesDigest, s.comes, 0
		case "ready":
			s.compare(number(1), number(2), number(3), f[4])
		case "wrong":
			s.t.Fatal(line)
		}
		if f[0] == word {
			return true
		}
	}
	return false
}

// compare: what a stepper finds is what those before it said, or one step more,
// which it had no time to say.
func (s *stepped) compare(index, snap, term uint64, digest string) {
	s.t.Helper()
	if s.comes != 0 && index == s.comes {
		s.index, s.digest, s.snap = s.comes, s.comesDigest, s.comes
	}
	s.comes = 0
	switch {
	case index < s.index || index > s.index+1 && s.index != 0:
		s.t.Fatalf("the log ends at %d, %d was durable", index, s.index)
	case index == s.index && s.digest != "" && digest != s.digest:
		s.t.Fatalf("the digest at %d is %s, it was %s", index, digest, s.digest)
	case term < s.term || term > s.term+1:
		s.t.Fatalf("the term is %d, there was a vote in %d", term, s.term)
	case snap < s.snap:
		s.t.Fatalf("the newest snapshot is at %d, there was one at %d", snap, s.snap)
	}
	s.index, s.digest, s.term, s.snap = index, digest, term, snap
}

// end waits for the stepper, or kills it, and says how it has ended.
func (s *stepped) end(l *stepperLife, kill bool) (code int, fatal string) {
	s.t.Helper()
	if kill {
		_ = l.cmd.Process.Kill()
	}
	s.until(l, "")
	_ = l.in.Close()
	_ = l.cmd.Wait() // how it ended is in ProcessState
	for _, line := range l.said {
		if word, rest, _ := strings.Cut(line, " "); word == "fatal" || word == "returned" {
			fatal = rest
		}
	}
	return l.cmd.ProcessState.ExitCode(), fatal
}

// life runs one stepper from its start to its end, and go with it. before is
// called before it starts, and between with it open.
func (s *stepped) life(before, between func() error) (code int, fatal string) {
	s.t.Helper()
	if err := before(); err != nil {
		s.t.Fatal(err)
	}
	l, in := s.start()
	defer func() { _ = in.Close() }()
	if s.until(l, "ready") {
		if err := between(); err != nil {
			s.t.Fatal(err)
		}
		line := "go"
		if s.installs {
			line = stepperInstalls
		}
		_, _ = io.WriteString(in, line+"\n") // it may have ended by itself
	}
	return s.end(l, false)
}

func nothing() error { return nil }

// stepKinds are the ways in which a node keeps its log and its bodies.
var stepKinds = []struct{ kind, bodies string }{{raftlog.KindWAL, BodiesDisk}, {raftlog.KindBolt, BodiesDisk}, {raftlog.KindWAL, BodiesMemory}}

// TestPowerCut_BetweenEachTwoSteps cuts the power before each change of the disk
// that a node makes: when it opens its files, votes, appends, takes a snapshot and
// truncates the log behind it, replaces an entry by that of a later leader, and takes
// the snapshot of one that is ahead. What was durable is there afterwards, and whole.
func TestPowerCut_BetweenEachTwoSteps(t *testing.T) {
	t.Parallel()
	for _, c := range stepKinds {
		for _, loss := range []string{"", "tear", "keep"} {
			name := strings.TrimSuffix(c.kind+"-"+c.bodies+"-"+loss, "-")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newStepped(t, c.kind, c.bodies)
				opening := s.sweep(loss, true)
				running := s.sweep(loss, false)
				t.Logf("%d cuts while it opened, %d while it ran", opening, running)
				if opening == 0 || running == 0 {
					t.Error("nothing was cut")
				}
			})
		}
	}
}

// TestIOError_AtEachStep makes each fsync, truncation, creation, rename or removal
// of a node's life fail once, and all writes from each one on. A node must end over
// it by itself: a follower whose append was refused would be kept by raft, which only
// logs the error, and hold nothing new while its leader counts it as alive. The power is cut afterwards, and what was said to be durable is there: a node
// that had tried again after a failed fsync would have been told that all is well.
func TestIOError_AtEachStep(t *testing.T) {
	t.Parallel()
	for _, c := range stepKinds {
		for _, op := range []string{"write", "fsync", "truncate", "create", "rename", "remove"} {
			for _, errno := range []string{"EIO", "ENOSPC"} {
				if errno == "ENOSPC" && op != "write" && op != "create" {
					continue // the others need no space
				}
				t.Run(strings.Join([]string{c.kind, c.bodies, op, errno}, "-"), func(t *testing.T) {
					t.Parallel()
					s := newStepped(t, c.kind, c.bodies)
					s.fail(op, errno, true)
					s.fail(op, errno, false)
				})
			}
		}
	}
}

// fail makes the first operation of a kind fail, then the second, until a life has
// too few of them.
func (s *stepped) fail(op, errno string, opening bool) {
	stride, first := steps(s.t)
	for n := first; ; n += stride {
		rule := func() error {
			rule := fmt.Sprintf("fail %s %s skip %d", op, errno, n-1)
			if op != "write" { // a write that fails once may be a short one that is gone on with
				rule += " times 1"
			}
			_, err := s.disk.Do(rule)
			return err
		}
		before, between := rule, s.disk.Heal
		if !opening {
			before, between = nothing, rule
		}
		hits := s.hits(op)
		code, fatal := s.life(before, between)
		if err := s.disk.Heal(); err != nil {
			s.t.Fatal(err)
		}
		if s.hits(op) == hits {
			if code != 0 {
				s.t.Fatalf("nothing has failed, and it ended with %d: %s", code, fatal)
			}
			return
		}
		at, err := s.disk.Do("hit")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Logf("%s %-60s -> ends with %d, %.100s", errno, at, code, fatal)
		switch {
		case code == stepperReturned:
			s.t.Errorf("%s has failed with %s, and nobody but raft was told", at, errno)
		case code == 0 && !survivable(at):
			s.t.Errorf("%s has failed with %s, and the node went on", at, errno)
		}
		// Whatever is there only in memory is gone now.
		if err := errors.Join(s.disk.CutPower(), s.disk.PowerOn()); err != nil {
			s.t.Fatal(err)
		}
		if code, fatal := s.life(nothing, nothing); code != 0 {
			s.t.Fatalf("after a failed %s it does not come up: %s", op, fatal)
		}
	}
}

// survivable are the errors that a node may go on after.
func survivable(at string) bool {
	op, path, _ := strings.Cut(at, " ")
	dir, name := filepath.Split(path)
	switch {
	case op == "remove" && !strings.HasPrefix(path, logDir):
		return true // Pebble removes it later, and whoever starts next what is left of a snapshot
	case op == "create" && strings.HasSuffix(name, ".sst"):
		return true // where Pebble cannot link a table it copies it
	case strings.HasPrefix(name, "OPTIONS-") && strings.HasPrefix(dir, bodiesDir):
		return true // in the live directory: for people
	}
	return false
}

// hits is how many operations of a kind have failed so far.
func (s *stepped) hits(op string) string {
	s.t.Helper()
	text, err := s.disk.Do("stats")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(" "+text, " "+op+"=")
	hits, _, _ := strings.Cut(rest, "/")
	return hits
}

// stepsStrideDefault leaves a minute's work; which moments are tried is another
// choice each time.
const stepsStrideDefault = 25

func steps(t *testing.T) (stride, first int) {
	stride = *stepsStride
	if stride == 0 {
		stride = stepsStrideDefault
	}
	first = 1 + rand.IntN(stride)
	t.Logf("each %dth moment from the %dth on; all of them: -steps.stride 1", stride, first)
	return stride, first
}

// sweep cuts before the first change, then before the second, until a stepper has
// ended before its cut came.
func (s *stepped) sweep(loss string, opening bool) (cuts int) {
	stride, first := steps(s.t)
	for n := first; ; n += stride {
		how := loss
		if loss == "tear" {
			how = fmt.Sprint("tear ", n)
		}
		plan := func() error { return s.disk.CutBefore(n, how) }
		before, between := plan, func() error { return s.disk.CutBefore(0, "") }
		if !opening {
			before, between = nothing, plan
		}
		code, fatal := s.life(before, between)
		at, err := s.disk.CutAt()
		if err != nil {
			s.t.Fatal(err)
		}
		if at == "" {
			if code != 0 {
				s.t.Fatalf("nothing was cut, and it ended with %d: %s", code, fatal)
			}
			return cuts
		}
		cuts++
		s.t.Logf("%4d before %-60s -> ends with %d, %.100s", n, at, code, fatal)
		if err := s.disk.PowerOn(); err != nil {
			s.t.Fatal(err)
		}
		// A whole life, which compares.
		if code, fatal := s.life(nothing, nothing); code != 0 {
			s.t.Fatalf("after the cut before %s it does not come up: %s", at, fatal)
		}
	}
}
