package cluster

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// stepperEnv makes this test binary a stepper instead: a process that does to a
// directory what a node does, one step after the other and without a cluster, so
// that a test may fail its disk, cut its power or kill it between two of them. It
// is a process of its own because a storage error ends one. The value is DIR STORE
// BODIES.
const stepperEnv = "ONCEQ_TEST_STEPPER"

func TestMain(m *testing.M) {
	if how := os.Getenv(stepperEnv); how != "" {
		f := strings.Fields(how)
		if err := (&stepper{dir: f[0], kind: f[1], bodies: f[2], out: os.Stdout}).run(); err != nil {
			stepperFatal(err)
		}
		os.Exit(0)
	}
	code := m.Run()
	if bin := faultBinary.path; bin != "" {
		_ = os.RemoveAll(filepath.Dir(bin)) // in the temporary directory
	}
	os.Exit(code)
}

// stepperFatal ends the process at once, like a node's.
func stepperFatal(err error) {
	fmt.Printf("fatal %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	os.Exit(stepperFailed)
}

const (
	stepperFailed   = 3 // a storage error, or damage, that was noticed
	stepperWrong    = 4 // something is served that is not what was stored
	stepperReturned = 5 // an error was returned to raft, and nothing has ended over it
	stepperQueue    = "orders"
	stepperYoung    = 32 << 10
	stepperTail     = 4  // entries that stay in the log behind a snapshot
	stepperBatch    = 12 // messages an entry
)

// stepper says on its standard output how far it has come:
//
//	ready INDEX SNAPSHOT TERM DIGEST   after the opening: what is there, and whole
//	voted TERM                         a vote is durable
//	stored INDEX DIGEST                an entry is durable and applied; one that it
//	                                   replaced was never said to be
//	snapshot INDEX                     a snapshot is
//	installing INDEX DIGEST            one of somebody ahead comes: from now on it may be there
//	installed                          it is
//	fatal ERROR                        it ends
//	returned ERROR                     raft would be told of it, and go on
//
// and does what follows "ready" when a line comes on its standard input, with an install
// when that asks for it.
type stepper struct {
	dir, kind, bodies string
	out               io.Writer

	g         *group
	snapshots raft.SnapshotStore
	term      uint64
	index     uint64 // of the last entry that was applied
	frozen    uint64 // digest of the newest snapshot
}

// stepperInstalls is the line that asks for an install.
const stepperInstalls = "install"

func (s *stepper) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *stepper) run() error {
	if err := s.open(); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		fmt.Println("wrong", err)
		os.Exit(stepperWrong)
	}
	in := bufio.NewScanner(os.Stdin)
	if in.Scan() {
		if err := s.work(in.Text() == stepperInstalls); err != nil {
			if errors.Is(err, raftlog.ErrFailed) {
				// Another goroutine has failed the log before, and is about to end this process.
				time.Sleep(stepsBound)
			}
			fmt.Println("returned", strings.ReplaceAll(err.Error(), "\n", "; "))
			os.Exit(stepperReturned)
		}
	}
	return s.close()
}

// work is what raft asks of a node. An error that it returns is one that raft logs,
// or steps down over, and goes on: the node must have ended before.
func (s *stepper) work(installs bool) error {
	steps := []func() error{s.vote, s.publish, s.publish, s.publish, s.snapshot, s.publish, s.conflict, s.settle}
	if installs {
		steps = append(steps, s.install, s.publish) // no segment is full behind it
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// settle waits for a new segment of the log that may be under way.
func (s *stepper) settle() error {
	first, err := s.g.store.FirstIndex()
	if err != nil {
		return err
	}
	return s.g.store.DeleteRange(first, first)
}

func (s *stepper) close() error {
	var err error
	if b, ok := s.g.bodies.(*storage.Pebble); ok {
		err = b.Close()
	}
	return errors.Join(err, s.g.store.Close())
}

// open does what a node does at its start, in the same order.
func (s *stepper) open() error {
	quiet := slog.New(slog.DiscardHandler)
	s.g = &group{life: newLife(1), log: quiet, fatal: stepperFatal, snaps: newSnapshotter(1<<30, 1<<30, time.Hour, nil, quiet)}
	s.g.starting.Store(true)
	s.g.bodies = storage.NewMemory()
	if s.bodies == BodiesDisk {
		b, err := storage.OpenPebble(storage.Options{Dir: filepath.Join(s.dir, bodiesDir), YoungBytes: stepperYoung, Fatal: stepperFatal, Logger: quiet})
		if err != nil {
			return err
		}
		s.g.bodies = b
	}
	s.g.machine = fsm.New(fsm.Config{Group: fsmtest.Group}, s.g.bodies)
	// What a node has of its identity file.
	mark := filepath.Join(s.dir, "known")
	_, err := os.Stat(mark)
	known := err == nil
	s.g.store, err = raftlog.Open(raftlog.Options{Dir: filepath.Join(s.dir, logDir), Kind: s.kind, Owner: "n1", Known: known,
		Annex: annex, Logger: quiet, Fatal: stepperFatal, SegmentBytes: 64 << 10, AppendTimeout: stepsBound})
	if err != nil {
		return err
	}
	if s.snapshots, err = s.g.store.OpenSnapshots(s.dir, snapshotsKept); err != nil {
		return err
	}
	if !known {
		if err := errors.Join(os.WriteFile(mark, nil, 0o600), syncDir(s.dir)); err != nil {
			return err
		}
	}
	newest := uint64(0)
	all, err := s.snapshots.List()
	if err != nil {
		return err
	}
	slices.Reverse(all) // each is whole, and the newest counts
	for _, meta := range all {
		_, r, err := s.snapshots.Open(meta.ID)
		if err == nil {
			err = errors.Join(restoreMachine(s.g.machine, s.g.bodies, s.g.annexPath, r), r.Close())
		}
		if err != nil {
			return err
		}
		newest = meta.Index
	}
	last, err := s.g.store.LastIndex()
	if err != nil {
		return err
	}
	for i := newest + 1; i <= last; i++ {
		var l raft.Log
		if err := s.g.store.GetLog(i, &l); err != nil {
			return err
		}
		if _, err := s.g.machine.Apply(l.Index, l.Data); err != nil {
			return err
		}
	}
	s.index = max(newest, last)
	if s.term, err = s.g.store.GetUint64([]byte("CurrentTerm")); err != nil {
		return err
	}
	if s.index == 0 {
		if err := s.begin(); err != nil {
			return err
		}
	}
	s.say("ready %d %d %d %x", s.index, newest, s.term, s.g.machine.Digest())
	return nil
}

// begin makes the queue and the session, which are the first of their kind.
func (s *stepper) begin() error {
	_, err := s.apply(fsmtest.New(fsmtest.Term{Node: "n1"}),
		fsmtest.New(wire.QueueCreate{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Name: stepperQueue}),
		fsmtest.New(wire.OpenSession{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Nonce: wire.Nonce{1}}))
	return err
}

// conflict does what a follower does when the leader of a later term has another
// entry where it has one that was never committed: an entry is stored, deleted again
// with nothing behind it, and another takes its place. Of the first nobody is told: it
// may be there or not.
func (s *stepper) conflict() error {
	lost := &raft.Log{Index: s.index + 1, Term: max(1, s.term), Type: raft.LogCommand, Data: fsmtest.Entry(1, 0, 0, fsmtest.New(fsmtest.Term{Node: "n2"}))}
	if err := s.g.store.StoreLogs([]*raft.Log{lost}); err != nil {
		return err
	}
	if err := s.waitMark(lost.Index); err != nil {
		return err
	}
	if err := s.vote(); err != nil {
		return err
	}
	if err := s.g.store.DeleteRange(lost.Index, lost.Index); err != nil {
		return err
	}
	return s.publish()
}

// waitMark waits until the high-water file, which lags behind, says that the node has
// acknowledged an entry.
func (s *stepper) waitMark(index uint64) error {
	path := filepath.Join(s.dir, logDir, raftlog.HighWaterFile)
	for began := time.Now(); time.Since(began) < stepsBound; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, slot := range [][]byte{b[:len(b)/2], b[len(b)/2:]} { // magic, sequence, index
			if len(slot) >= 24 && binary.BigEndian.Uint64(slot[16:]) == index {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not come to say %d", path, index)
}

// apply stores an entry and applies it.
func (s *stepper) apply(cs ...fsmtest.Command) (*fsm.Effects, error) {
	l := &raft.Log{Index: s.index + 1, Term: max(1, s.term), Type: raft.LogCommand, Data: fsmtest.Entry(1, 0, 0, cs...)}
	if err := s.g.store.StoreLogs([]*raft.Log{l}); err != nil {
		return nil, err
	}
	eff, err := s.g.machine.Apply(l.Index, l.Data)
	if err != nil {
		return nil, err
	}
	for i, r := range eff.Results {
		if r.Status != fsm.StatusOK {
			return nil, fmt.Errorf("command %d of entry %d: %v", i, l.Index, r.Status)
		}
	}
	s.index = l.Index
	s.say("stored %d %x", l.Index, s.g.machine.Digest())
	return eff, nil
}

// stepperBody is a function of the message's offset.
func stepperBody(offset uint64) string {
	return fmt.Sprintf("message %d %s", offset, strings.Repeat(fmt.Sprintf("%x.", offset*0x9e3779b97f4a7c15), 100))
}

// publish stores some messages and deletes the oldest ones but a hundred.
func (s *stepper) publish() error {
	q, ok := s.g.machine.QueueByName(stepperQueue)
	if !ok {
		return errors.New("there is no queue")
	}
	first := q.Counts.Stored
	session := s.g.machine.Sessions(0, 1)[0]
	var bodies []string
	for i := range uint64(stepperBatch) {
		bodies = append(bodies, stepperBody(first+i))
	}
	sequence := first/stepperBatch + 1
	cs := []fsmtest.Command{fsmtest.New(fsmtest.Frame(session.Number, session.Epoch, sequence, sequence, 0, stepperQueue, bodies...))}
	var old []wire.Place
	ready, _ := s.g.machine.Peek(stepperQueue, fsm.MessageReady, fsm.MessageInfo{}, fsm.PeekMax)
	for _, m := range ready[:max(0, len(ready)-100)] {
		old = append(old, wire.Place{Lane: m.Lane, Offset: m.Offset})
	}
	if len(old) > 0 {
		cs = append(cs, fsmtest.New(wire.Edit{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Number: q.Number, Verb: wire.EditDelete, Places: old}))
	}
	_, err := s.apply(cs...)
	return err
}

// check reads every message that the machine has.
func (s *stepper) check() error {
	q, ok := s.g.machine.QueueByName(stepperQueue)
	if !ok {
		return errors.New("there is no queue")
	}
	ready, _ := s.g.machine.Peek(stepperQueue, fsm.MessageReady, fsm.MessageInfo{}, fsm.PeekMax)
	for _, m := range ready {
		_, b, ok := s.g.bodies.Get(q.Number, m.Lane, m.Offset)
		if !ok || !bytes.Contains(b, []byte(stepperBody(m.Offset))) {
			return fmt.Errorf("message %d is %.60q, %v", m.Offset, b, ok)
		}
	}
	return nil
}

// vote does what raft does when a candidate of the next term asks.
func (s *stepper) vote() error {
	s.term++
	store := s.g.store
	err := store.SetUint64([]byte("CurrentTerm"), s.term)
	if err == nil {
		err = store.SetUint64([]byte("LastVoteTerm"), s.term)
	}
	if err == nil {
		err = store.Set([]byte("LastVoteCand"), []byte("n2"))
	}
	if err != nil {
		return err
	}
	s.say("voted %d", s.term)
	return nil
}

// snapshot does what raft does: the machine is frozen, goes on, and the log is
// truncated when the snapshot has closed well.
func (s *stepper) snapshot() error {
	frozen, err := s.g.Snapshot()
	if err != nil {
		return err
	}
	s.frozen = s.g.machine.Digest()
	defer frozen.Release()
	index := s.index
	if err := s.publish(); err != nil {
		return err
	}
	_, trans := raft.NewInmemTransport("n1")
	defer trans.Close()
	sink, err := s.snapshots.Create(1, index, max(1, s.term), raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1"}}}, 1, trans)
	if err != nil {
		return err
	}
	if err := frozen.Persist(sink); err != nil {
		return err
	}
	first, err := s.g.store.FirstIndex()
	if err != nil {
		return err
	}
	if keep := index - min(index, stepperTail); first <= keep {
		if err := s.g.store.DeleteRange(first, keep); err != nil {
			return err
		}
	}
	s.say("snapshot %d", index)
	return nil
}

// install does what a follower does that lacks more than its leader's log has: it takes
// a snapshot of somebody who is ahead, and its log is emptied.
func (s *stepper) install() error {
	ahead, meta, err := s.ahead()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(ahead.dir) }()
	defer func() { _ = ahead.close() }()
	_, r, err := ahead.snapshots.Open(meta.ID)
	if err != nil {
		return err
	}
	defer r.Close()
	s.say("installing %d %x", meta.Index, ahead.frozen)
	if err := s.receive(meta, r); err != nil {
		return err
	}
	s.say("installed")
	return nil
}

// receive does what raft does with a snapshot that comes.
func (s *stepper) receive(meta *raft.SnapshotMeta, r io.Reader) error {
	_, trans := raft.NewInmemTransport("n1")
	defer trans.Close()
	sink, err := s.snapshots.Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, trans)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, r); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	_, own, err := s.snapshots.Open(sink.ID())
	if err != nil {
		return err
	}
	if err := errors.Join(restoreMachine(s.g.machine, s.g.bodies, s.g.annexPath, own), own.Close()); err != nil {
		stepperFatal(err) // as group.Restore ends a node that runs
	}
	s.index = meta.Index
	first, err := s.g.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.g.store.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	return s.g.store.DeleteRange(first, last)
}

// ahead is somebody with all that this stepper has and a little more, in a directory of
// its own, and a snapshot of that.
func (s *stepper) ahead() (*stepper, *raft.SnapshotMeta, error) {
	dir, err := os.MkdirTemp("", "ahead-")
	if err != nil {
		return nil, nil, err
	}
	a := &stepper{dir: dir, kind: s.kind, bodies: s.bodies, out: io.Discard}
	if err := a.open(); err != nil {
		return nil, nil, err
	}
	newest, err := s.snapshots.List()
	if err != nil {
		return nil, nil, err
	}
	meta, r, err := s.snapshots.Open(newest[0].ID)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(a.receive(meta, r), r.Close()); err != nil {
		return nil, nil, err
	}
	a.term = s.term
	for i := a.index + 1; i <= s.index; i++ {
		var l raft.Log
		if err := s.g.store.GetLog(i, &l); err != nil {
			return nil, nil, err
		}
		if err := a.g.store.StoreLogs([]*raft.Log{&l}); err != nil {
			return nil, nil, err
		}
		if _, err := a.g.machine.Apply(l.Index, l.Data); err != nil {
			return nil, nil, err
		}
		a.index = i
	}
	for _, step := range []func() error{a.publish, a.publish, a.snapshot} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	all, err := a.snapshots.List()
	if err != nil {
		return nil, nil, err
	}
	return a, all[0], nil
}
