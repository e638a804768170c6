package cluster

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// A backup is read from a snapshot on disk, one that is there already if nothing
// was applied since, and sent part by part as the client asks for them. So it
// costs Apply what a snapshot costs, whatever time the client takes; the bodies in
// files are linked, so that the next snapshot may remove this one. Any node can
// make it: the client brings an index that a leader has confirmed, and the
// snapshot is not older.

// committed answers with an index that covers everything confirmed so far.
func (g *group) committed(c conn, corr uint32, payload []byte) {
	if _, err := wire.DecodeCommittedRequest(payload); err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.reads.submit(read{
		do: func() {
			// What is applied here was committed, and what was confirmed is applied.
			c.Reply(corr, wire.OpCommitted, encoded(wire.Committed{Index: max(g.progress.at(), g.machine.Index())}))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

// backups are those that this node makes, one for a connection.
type backups struct {
	n *Node

	mu   sync.Mutex // guards open
	open map[conn]*backup
}

func newBackups(n *Node) *backups { return &backups{n: n, open: make(map[conn]*backup)} }

// backup is one of them. Its producer reads the snapshot, its server answers the
// client; both are one goroutine each and end with ctx.
type backup struct {
	g      *group
	dir    string // for files, "" when everything is in memory
	cancel context.CancelFunc
	ctx    context.Context // of this backup alone; stored, since its parts come as requests
	reads  chan backupRead
	parts  chan wire.BackupPart
	head   chan wire.BackupHead // cap 1

	meta *raft.SnapshotMeta // of the producer
	wall int64
	err  error // of the producer; may be read when parts or head is closed
}

type backupRead struct {
	corr   uint32
	number uint64
}

func backupError(format string, args ...any) wire.ErrorReply {
	return wire.ErrorReply{Code: wire.CodeBackup, Retriable: true, Text: fmt.Sprintf(format, args...)}
}

// begin makes a backup on a connection, in the place of one that was not read to
// its end.
func (b *backups) begin(g *group, c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeBackupOpen(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	k := &backup{
		g: g, dir: b.n.scanDir(),
		reads: make(chan backupRead, backupReadsMax), parts: make(chan wire.BackupPart, backupPartsAhead), head: make(chan wire.BackupHead, 1),
		wall: g.wall().UnixNano(),
	}
	b.mu.Lock()
	if old := b.open[c]; old != nil {
		old.cancel()
	}
	if b.open[c] == nil && len(b.open) >= backupsMax {
		b.mu.Unlock()
		c.Error(corr, backupError("node %s makes %d backups already: ask another node, or wait", b.n.cfg.Name, backupsMax))
		return
	}
	k.ctx, k.cancel = context.WithCancel(b.n.ctx)
	b.open[c] = k
	b.mu.Unlock()
	started := b.n.spawn(func(context.Context) {
		defer b.end(c, k)
		k.serve(c, corr, m.Index)
	})
	if !started {
		b.end(c, k)
		c.Error(corr, *errShuttingDown())
	}
}

// read queues a request for a part.
func (b *backups) read(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeBackupRead(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	b.mu.Lock()
	k := b.open[c]
	b.mu.Unlock()
	if k == nil {
		c.Error(corr, backupError("no backup is being made on this connection"))
		return
	}
	select {
	case k.reads <- backupRead{corr, m.Number}:
	default:
		c.Error(corr, *errOverloaded("reads of a backup"))
	}
}

func (b *backups) end(c conn, k *backup) {
	k.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[c] == k {
		delete(b.open, c)
	}
}

// disconnected ends the backup of a connection.
func (b *backups) disconnected(c conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.open[c]; k != nil {
		k.cancel()
	}
}

// serve makes the backup and answers the client until the end was read. A client
// that asks for nothing any more is given up.
func (k *backup) serve(c conn, corr uint32, index uint64) {
	go k.produce(index)
	defer func() {
		k.cancel()
		for range k.parts { // closed when the producer ends
		}
	}()
	failed := func(corr uint32, err error) { c.Error(corr, backupError("node %s: %v", k.g.node, err)) }
	head, ok := <-k.head
	if !ok {
		failed(corr, k.err)
		return
	}
	c.Reply(corr, wire.OpBackupOpen, encoded(head))
	idle := time.NewTimer(backupIdleMax)
	defer idle.Stop()
	for next := uint64(0); ; next++ {
		idle.Reset(backupIdleMax)
		var r backupRead
		select {
		case r = <-k.reads:
		case <-idle.C:
			return
		case <-k.ctx.Done():
			return
		}
		if r.number != next {
			failed(r.corr, fmt.Errorf("part %d was asked for after %d parts", r.number, next))
			return
		}
		part, ok := <-k.parts
		if !ok {
			if k.err != nil {
				failed(r.corr, k.err)
				return
			}
			part = wire.BackupPart{Kind: wire.BackupEnd}
		}
		c.Reply(r.corr, wire.OpBackupRead, encoded(part))
		if part.Kind == wire.BackupEnd {
			return
		}
	}
}

// produce makes the parts.
func (k *backup) produce(index uint64) {
	k.err = k.make(index)
	close(k.head)
	close(k.parts)
}

func (k *backup) make(index uint64) error {
	meta, stream, err := k.g.snapshotFor(k.ctx, index)
	if err != nil {
		return err
	}
	k.meta = meta
	defer stream.Close()
	w := fsm.NewBackupWriter(fsm.Config{Group: groupNumber, Limits: k.g.limits}, k)
	// The writer takes a reader of this size as it is, so what it does not read
	// stays in there.
	br := bufio.NewReaderSize(untilDone{k.ctx, stream}, 1<<20)
	if err := w.Read(br); err != nil {
		return err
	}
	if err := k.files(w, br); err != nil {
		return err
	}
	return w.End()
}

// files reads the bodies that a snapshot has in files.
func (k *backup) files(w *fsm.BackupWriter, r io.Reader) error {
	head, files, err := raftlog.ReadAnnexHead(r)
	if err != nil || !files {
		return err
	}
	var scan *storage.Scan
	if own := k.g.annexPath(head); own != "" {
		scan, err = storage.OpenScan(own, k.dir, k.g.log)
	} else {
		scan, err = storage.ReceiveScan(r, k.dir, k.g.log)
	}
	if err != nil {
		return err
	}
	err = scan.Each(func(queue uint64, lane uint8, offset uint64, at int64, message []byte) error {
		if err := k.ctx.Err(); err != nil {
			return err
		}
		return w.Body(queue, lane, offset, at, message)
	})
	return errors.Join(err, scan.Close())
}

// untilDone ends a stream with its context.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// Head implements fsm.BackupSink.
func (k *backup) Head(h fsm.BackupHead) error {
	head := wire.BackupHead{
		Cluster: k.g.cluster, Incarnation: h.Incarnation, Node: k.g.node, Index: k.meta.Index, Term: k.meta.Term,
		Now: time.Duration(h.Now), Wall: k.wall, MachineVersion: k.g.version.active.Load(),
		QueueMax: h.QueueMax, Queues: h.Queues, Messages: h.Messages, Sessions: h.Sessions,
	}
	rand.Read(head.ID[:])
	k.head <- head
	return nil
}

// Tables implements fsm.BackupSink.
func (k *backup) Tables(data []byte) error {
	return k.part(wire.BackupPart{Kind: wire.BackupTables, Data: data})
}

// Bodies implements fsm.BackupSink.
func (k *backup) Bodies(data []byte, bodies int) error {
	return k.part(wire.BackupPart{Kind: wire.BackupBodies, Bodies: uint64(bodies), Data: data})
}

func (k *backup) part(p wire.BackupPart) error {
	select {
	case k.parts <- p:
		return nil
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
}

// catchUp waits until index has been applied, for a while: other nodes have it.
func (g *group) catchUp(ctx context.Context, index uint64) error {
	behind := time.NewTimer(backupBehindMax)
	defer behind.Stop()
	reached := g.progress.reached(index)
	err := error(nil)
	select {
	case <-reached:
		return nil
	case <-behind.C:
		err = fmt.Errorf("it is behind: at index %d after %v, and %d is confirmed", g.progress.at(), backupBehindMax, index)
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.progress.forget(reached)
	return err
}

// snapshotFor opens the newest snapshot when it holds everything up to index,
// and takes one otherwise.
func (g *group) snapshotFor(ctx context.Context, index uint64) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := g.catchUp(ctx, index); err != nil {
		return nil, nil, err
	}
	g.mu.RLock()
	applied := g.machine.Index() // 0 right after a restart from a snapshot, which is the newest then
	g.mu.RUnlock()
	var why error
	for range snapshotTries {
		found, err := g.snapshots.List()
		if err == nil && len(found) > 0 && found[0].Index >= applied {
			meta, r, err := g.store.ReadSnapshot(found[0].ID)
			if err == nil {
				return meta, r, nil
			}
			why = err // a newer one may have taken its place
		}
		if err != nil {
			why = err
		}
		// The library refuses while a change of the membership is under way.
		if err := g.snaps.take(g); err != nil {
			why = err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(snapshotRetry):
		}
	}
	return nil, nil, fmt.Errorf("take a snapshot: %w", why)
}

const snapshotRetry = 200 * time.Millisecond

// scanPrefix begins the names of directories in which backups have files linked.
const scanPrefix = "backup-"

// scanDir is a new name for such a directory, "" when everything is in memory.
func (n *Node) scanDir() string {
	if n.cfg.MemoryStores != nil {
		return ""
	}
	var id [8]byte
	rand.Read(id[:])
	return filepath.Join(groupDir(n.cfg.DataDir), fmt.Sprintf("%s%x", scanPrefix, id))
}

// removeScans removes what a crash has left of them.
func removeScans(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), scanPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
