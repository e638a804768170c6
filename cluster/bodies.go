package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// Where a node keeps the bodies of messages.
const (
	// BodiesMemory: all in memory, written whole into each snapshot.
	BodiesMemory = "memory"
	// BodiesDisk: young ones in memory, the others on disk; a snapshot links files.
	BodiesDisk = "disk"
)

// bodiesDir is the live directory, in that of the group. It does not outlive the
// process.
const bodiesDir = "bodies"

// bodyStore is what the machine writes and deliveries read.
type bodyStore interface {
	fsm.BodyStore
	Get(queue uint64, lane uint8, offset uint64) (publishedAt int64, message []byte, ok bool)
}

var errBodiesElsewhere = errors.New("this snapshot has its bodies in files, and this node keeps them in memory: start it with --bodies disk")

// openBodies comes after the directory was locked.
func (n *Node) openBodies() error {
	if n.cfg.Bodies == BodiesMemory || n.cfg.MemoryStores != nil {
		n.bodies = storage.NewMemory()
		return nil
	}
	s, err := storage.OpenPebble(storage.Options{
		Dir: filepath.Join(groupDir(n.cfg.DataDir), bodiesDir), YoungBytes: n.cfg.BodyMemory, OpenTables: n.descriptors.tables, Fatal: n.fatal, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("open bodies: %w", err)
	}
	n.bodies = s
	return nil
}

// ErrBodyMissing ends a node that has a message without its body: what it keeps on
// disk is not what it had stored.
var ErrBodyMissing = errors.New("the body of a message is missing")

// bodyMissing tells which; mu is held.
func (g *group) bodyMissing(queue uint64, lane uint8, offset uint64) error {
	name := fmt.Sprint("queue ", queue)
	if qs := g.machine.QueuesFrom(queue, 1); len(qs) == 1 && qs[0].Number == queue {
		name = qs[0].Name
	}
	return fmt.Errorf("%w: node %s holds %s and has no body for it. It must not go on as if there were no such message: "+
		"look closer with  onceq node verify %s  and, if a majority of the other nodes is well, run  onceq node wipe %s  and start the node again, it rejoins with what the others have",
		ErrBodyMissing, g.node, wire.FormatMessageID(name, lane, offset), g.dir, g.dir)
}

// lookAgain is for a body that was not found. Mostly its message was settled, moved
// or purged meanwhile, so stored asks the machine; while nothing is applied, machine
// and bodies agree. A body that the machine knows of and that is not there is lost,
// and a node that kept quiet about it would never deliver the message.
func (g *group) lookAgain(stored func() bool, queue uint64, lane uint8, offset uint64) (publishedAt int64, message []byte, ok bool) {
	g.mu.RLock()
	if !stored() || g.stopped.Load() {
		g.mu.RUnlock()
		return 0, nil, false
	}
	publishedAt, message, ok = g.bodies.Get(queue, lane, offset)
	var err error
	if !ok {
		err = g.bodyMissing(queue, lane, offset)
	}
	g.mu.RUnlock()
	if err != nil {
		g.stop(err)
	}
	return publishedAt, message, ok
}

// missing looks again for the body of a delivery.
func (g *group) missing(d *fsm.Delivery) (publishedAt int64, message []byte, ok bool) {
	return g.lookAgain(func() bool { return g.machine.Holds(d) }, d.Queue, d.Lane, d.Offset)
}

// closeBodies comes after raft has ended.
func (n *Node) closeBodies() error {
	if c, ok := n.bodies.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// annex reads the files of a snapshot's bodies.
var annex = raftlog.Annex{Bytes: storage.StreamBytes, Check: storage.Check, Sum: storage.CheckpointSum,
	Send: func(dir string, w io.Writer) error { return annexDamage(storage.Stream(dir, w)) },
	Parts: func(dir string) ([]string, error) {
		tables, err := storage.Tables(dir)
		return tables, annexDamage(err)
	},
	CheckPart: func(path string) (int64, error) {
		bytes, err := storage.CheckTable(path)
		return bytes, annexDamage(err)
	},
}

// annexDamage tells damage of a snapshot's bodies in the words of who keeps snapshots.
func annexDamage(err error) error {
	if errors.Is(err, storage.ErrBadCheckpoint) {
		return fmt.Errorf("%w: %w", raftlog.ErrSnapshotDamaged, err)
	}
	return err
}

// bodyFiles is a store whose bodies can be replaced by a checkpoint.
type bodyFiles interface {
	Load(dir string) error
	Receive(r io.Reader) error
}

// restoreMachine reads a snapshot: the machine's stream, and behind it where its
// bodies are, if they are in files.
func restoreMachine(m *fsm.Machine, bodies bodyStore, own func(raftlog.AnnexHead) string, r io.Reader) error {
	// The machine takes a reader of this size as it is, so what it does not read
	// stays in there.
	br := bufio.NewReaderSize(r, 1<<20)
	if err := m.Restore(br); err != nil {
		return err
	}
	head, files, err := raftlog.ReadAnnexHead(br)
	if err != nil || !files {
		return err
	}
	s, ok := bodies.(bodyFiles)
	if !ok {
		return errBodiesElsewhere
	}
	if dir := own(head); dir != "" {
		return s.Load(dir)
	}
	return s.Receive(br)
}

// hold says that publishes should wait: this node's disk does not keep up. A
// follower's may be slower; that one is behind then, and nobody waits for it.
func (g *group) hold() bool {
	s, ok := g.bodies.(*storage.Pebble)
	return ok && s.Full() || g.snaps.behind()
}
