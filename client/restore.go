package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	// abortTimeout bounds how long a restore that failed tries to have what it
	// brought forgotten. What is left does no harm; the next restore replaces it.
	abortTimeout = 5 * time.Second
	// restoreTries is how often a restore begins again because the cluster's life
	// or another restore has changed meanwhile.
	restoreTries = 8
)

// RestoreOptions changes what a restore does.
type RestoreOptions struct {
	// Force also restores into a cluster that has queues: everything in it is
	// replaced.
	Force bool
	// Replace takes the place of another restore that is under way or was left
	// unfinished.
	Replace bool
	// BeginTimeout bounds the first step, which needs a majority: to announce the
	// restore. 0: only the context does. What follows takes as long as it takes.
	BeginTimeout time.Duration
	// Progress is called after each part, on the caller's goroutine. nil: not.
	Progress func(Progress)
}

// RestoreSummary says what was restored.
type RestoreSummary struct {
	Backup      BackupSummary
	Incarnation uint64 // of the life that began with it
	// Already: the cluster was restored from this very backup before, and nothing
	// was done. Only the header was read.
	Already bool
}

// Restore puts a backup in the place of everything in the cluster. Until its last
// step nothing of it is seen, and that step happens on all nodes or on none,
// whichever of them fail meanwhile; an error means that the cluster is as it was,
// except ErrOutcomeUnknown. Producers and consumers that are connected are told.
// It holds a few megabytes in memory.
func (a *Admin) Restore(ctx context.Context, r io.Reader, o RestoreOptions) (RestoreSummary, error) {
	if !a.c.enter() {
		return RestoreSummary{}, ErrClosed
	}
	defer a.c.wg.Done()
	x := &restore{c: a.c, o: o}
	s, err := ReadBackup(r, func(h BackupHead) error { return x.announce(ctx, h) }, func(n uint64, p BackupPart) error { return x.chunk(ctx, n, p) })
	x.done.Backup = s
	switch {
	case errors.Is(err, errAlready):
		x.done.Already = true
		return x.done, nil
	case err == nil:
		if err = x.end(ctx, s.Parts); answered(err, wire.CodeOutcomeUnknown) {
			return x.done, err
		}
	default:
		// Before its last step nothing is seen of a restore, whatever became of the others.
		err = withoutOutcome(ctx, err)
	}
	if err != nil && x.asked {
		x.abort(ctx)
	}
	return x.done, err
}

// withoutOutcome is an error of a step that may or may not have happened, and that
// changes nothing either way: what ended it.
func withoutOutcome(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("restore: %w: nothing was changed", causeOf(ctx))
	}
	return err
}

// errAlready ends the reading of a backup that the cluster has.
var errAlready = errors.New("restored already")

// restore is one on its way.
type restore struct {
	c     *Client
	o     RestoreOptions
	head  BackupHead
	asked bool // a begin of it may have arrived
	bytes int64
	count uint64

	incarnation uint64 // that the cluster had
	group       uint32
	next        uint64 // that begins
	done        RestoreSummary
}

func (x *restore) ask(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) (wire.RestoreReply, error) {
	return x.askInLine(ctx, op, 0, fill)
}

// chunkOverhead is at least what a chunk takes beside its data.
const chunkOverhead = 64

func (x *restore) askInLine(ctx context.Context, op wire.Op, bytes int, fill func(w *pack.Writer)) (wire.RestoreReply, error) {
	payload, _, err := x.c.produce.tryInLine(ctx, op, bytes, fill)
	if err != nil {
		return wire.RestoreReply{}, err
	}
	return wire.DecodeRestoreReply(payload)
}

// announce is begin within its time-out.
func (x *restore) announce(ctx context.Context, head BackupHead) error {
	ctx, cancel := beginning(ctx, x.o.BeginTimeout)
	defer cancel()
	err := x.begin(ctx, head)
	if answered(err, wire.CodeOutcomeUnknown) && ctx.Err() != nil {
		return fmt.Errorf("restore: no data was changed, and it may have been begun (then another needs Replace): %w", causeOf(ctx))
	}
	return err
}

func (x *restore) begin(ctx context.Context, head BackupHead) error {
	x.head = head
	var next [8]byte
	_, _ = rand.Read(next[:]) // never fails
	x.next = binary.BigEndian.Uint64(next[:]) | 1
	x.done.Incarnation = x.next
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	request := wire.RestoreBegin{
		Next: x.next, Cluster: head.Cluster, From: head.Incarnation, Backup: head.ID, QueueMax: head.QueueMax, Force: x.o.Force,
	}
	for try := 1; ; try++ {
		x.incarnation, x.group = x.c.topo.identity()
		request.Incarnation, request.Group = x.incarnation, x.group
		reply, err := x.ask(ctx, wire.OpRestoreBegin, func(w *pack.Writer) { request.Append(w) })
		x.asked = x.asked || answered(err, wire.CodeOutcomeUnknown) || err == nil && reply.Status == wire.StatusOK
		if answered(err, wire.CodeWrongCluster) {
			err, reply.Status = nil, wire.StatusWrongIncarnation // restored by somebody else meanwhile
		}
		switch {
		case err != nil:
			return err
		case reply.Status == wire.StatusOK && reply.Under == x.next:
			return nil
		case reply.Status == wire.StatusOK:
			x.done.Incarnation = reply.Incarnation
			return errAlready
		case reply.Status == wire.StatusNotEmpty:
			return notEmpty(reply)
		case reply.Status == wire.StatusRestoreStale && x.o.Replace && try < restoreTries:
			request.Replaces = reply.Under
		case reply.Status == wire.StatusRestoreStale:
			return newError(wire.CodeRestoreStale, "another restore (%016x) is under way or was left unfinished, with %d parts: wait for it, or replace it", reply.Under, reply.Chunks)
		case reply.Status != wire.StatusWrongIncarnation || try == restoreTries:
			return statusError(reply.Status, "restore")
		}
		if !pause(ctx, tries.next()) {
			return causeOf(ctx)
		}
	}
}

func notEmpty(r wire.RestoreReply) error {
	return newError(wire.CodeNotEmpty, "the cluster has %d queues with %d messages, which a restore replaces: nothing was changed", r.Queues, r.Messages)
}

func (x *restore) chunk(ctx context.Context, number uint64, p BackupPart) error {
	request := wire.RestoreChunk{Incarnation: x.incarnation, Group: x.group, Next: x.next, Number: number, Kind: p.Kind, Data: p.Data}
	reply, err := x.askInLine(ctx, wire.OpRestoreChunk, chunkOverhead+len(p.Data), func(w *pack.Writer) { request.Append(w) })
	if err == nil {
		err = x.judge(reply)
	}
	if err != nil {
		return fmt.Errorf("part %d: %w", number, err)
	}
	x.count += p.Bodies
	x.bytes += int64(len(p.Data)) + backupPartHeader + 4
	if x.o.Progress != nil {
		x.o.Progress(Progress{Head: x.head, Bodies: x.count, Bytes: x.bytes})
	}
	return nil
}

func (x *restore) end(ctx context.Context, parts uint64) error {
	request := wire.RestoreEnd{Incarnation: x.incarnation, Group: x.group, Next: x.next, Chunks: parts}
	reply, err := x.ask(ctx, wire.OpRestoreEnd, func(w *pack.Writer) { request.Append(w) })
	if err != nil {
		return err
	}
	return x.judge(reply)
}

// judge says why the cluster does not go on with this restore.
func (x *restore) judge(r wire.RestoreReply) error {
	switch r.Status {
	case wire.StatusOK:
		return nil
	case wire.StatusNotEmpty:
		return notEmpty(r)
	case wire.StatusRestoreStale, wire.StatusWrongIncarnation:
		return newError(wire.CodeRestoreStale, "another restore has taken the place of this one")
	case wire.StatusTooLarge:
		return newError(wire.CodeTooLarge, "the cluster does not take it: %s", r.Text)
	case wire.StatusMalformed:
		return newError(wire.CodeBadBackup, "the cluster does not take it: %s", r.Text)
	}
	return statusError(r.Status, "restore")
}

// abort has what was brought forgotten.
func (x *restore) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	request := wire.RestoreEnd{Incarnation: x.incarnation, Group: x.group, Next: x.next, Abort: true}
	if _, err := x.ask(ctx, wire.OpRestoreEnd, func(w *pack.Writer) { request.Append(w) }); err != nil {
		x.c.o.logger.Info("a restore was left unfinished", "incarnation", fmt.Sprintf("%016x", x.next), "error", err)
	}
}
