package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// backupAhead is how many parts of a backup are asked for at once.
const backupAhead = 4

// BackupOptions changes how a backup is made.
type BackupOptions struct {
	// Node makes it. "" is a node that does not lead, or the leader if there is no
	// other.
	Node string
	// BeginTimeout bounds the first step, which needs a majority: to learn what is
	// confirmed. 0: only the context does. What follows takes as long as it takes; a
	// node that falls silent, or is behind the others, is given up by itself.
	BeginTimeout time.Duration
	// Progress is called after each part, on the caller's goroutine. nil: not.
	Progress func(Progress)
}

// Progress is how far a backup or restore has come: Bodies of Head.Messages.
type Progress struct {
	Head   BackupHead
	Bodies uint64
	Bytes  int64 // of the file
}

// Backup writes a backup of the whole cluster to w: all that was confirmed when it
// was called, as of one index of the log. Publishing and consuming go on meanwhile.
// It holds a few megabytes in memory, whatever the backlog. After an error what was
// written is not a backup; it has no end mark, so nothing takes it for one.
func (a *Admin) Backup(ctx context.Context, w io.Writer, o BackupOptions) (BackupSummary, error) {
	if !a.c.enter() {
		return BackupSummary{}, ErrClosed
	}
	defer a.c.wg.Done()
	committed, err := a.committed(ctx, o.BeginTimeout)
	if err != nil {
		return BackupSummary{}, err
	}
	cn, head, err := a.openBackup(ctx, o.Node, committed.Index)
	if err != nil {
		return BackupSummary{}, err
	}
	defer cn.close()
	out, err := newBackupWriter(w, head)
	if err != nil {
		return out.s, fmt.Errorf("write backup: %w", err)
	}
	err = readParts(ctx, cn, func(p BackupPart) error {
		if err := out.part(p); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		if o.Progress != nil {
			o.Progress(Progress{Head: head, Bodies: out.s.Bodies, Bytes: out.s.Bytes})
		}
		return nil
	})
	if err != nil {
		return out.s, err
	}
	if out.s.Bodies != head.Messages {
		return out.s, newError(wire.CodeBackup, "node %s spoke of %d messages and sent %d", head.Node, head.Messages, out.s.Bodies)
	}
	s, err := out.end()
	if err != nil {
		return s, fmt.Errorf("write backup: %w", err)
	}
	return s, nil
}

// committed is an index that covers everything confirmed so far.
func (a *Admin) committed(ctx context.Context, timeout time.Duration) (wire.Committed, error) {
	ctx, cancel := beginning(ctx, timeout)
	defer cancel()
	payload, err := a.c.produce.read(ctx, wire.OpCommitted, wire.CommittedRequest{}.Append)
	if err != nil {
		return wire.Committed{}, fmt.Errorf("ask what is confirmed: %w", err)
	}
	return wire.DecodeCommitted(payload)
}

// beginning bounds the first step of what may take long after it.
func beginning(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
}

// openBackup finds a node that makes the backup. Nothing but ctx bounds how long one may
// take that is alive, since a snapshot of much takes long; it says itself when it is behind.
func (a *Admin) openBackup(ctx context.Context, node string, index uint64) (*conn, BackupHead, error) {
	var last []wire.NodeAddress
	var nodes []wire.NodeAddress
	for _, n := range a.c.topo.nodes() {
		leads, _ := a.c.topo.leads(n.Name)
		switch {
		case node != "" && n.Name != node:
		case leads:
			last = append(last, n)
		default:
			nodes = append(nodes, n)
		}
	}
	nodes = append(nodes, last...)
	if len(nodes) == 0 {
		return nil, BackupHead{}, newError(wire.CodeNoNode, "there is no node %q", node)
	}
	var reasons []string
	for _, n := range nodes {
		cn, head, err := a.openBackupAt(ctx, n.Address, index)
		if err == nil {
			return cn, head, nil
		}
		if ctx.Err() != nil {
			return nil, head, causeOf(ctx)
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", n.Name, plain(err)))
	}
	return nil, BackupHead{}, newError(wire.CodeBackup, "no node makes a backup (%s)", strings.Join(reasons, "; "))
}

func (a *Admin) openBackupAt(ctx context.Context, address string, index uint64) (*conn, BackupHead, error) {
	cn, err := a.c.connect(ctx, address)
	if err != nil {
		return nil, BackupHead{}, err
	}
	payload, err := cn.call(ctx, wire.OpBackupOpen, wire.BackupOpen{Index: index}.Append)
	var head BackupHead
	if err == nil {
		head, err = wire.DecodeBackupHead(payload)
	}
	if err != nil {
		cn.close()
		return nil, head, err
	}
	return cn, head, nil
}

// readParts asks for part after part, some ahead, until the end.
func readParts(ctx context.Context, cn *conn, take func(BackupPart) error) error {
	answers := make(chan answer, backupAhead)
	asked, next := uint64(0), uint64(0)
	for {
		for ; asked < next+backupAhead; asked++ {
			request := wire.BackupRead{Number: asked}
			err := cn.send(wire.OpBackupRead, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
				answers <- answer{op, payload, err}
			})
			if err != nil {
				return cutShort(next, err)
			}
		}
		var a answer
		select {
		case a = <-answers:
		case <-ctx.Done():
			return causeOf(ctx)
		}
		payload, err := a.result(wire.OpBackupRead)
		if err != nil {
			return cutShort(next, err)
		}
		p, err := wire.DecodeBackupPart(payload)
		switch {
		case err != nil:
			return cutShort(next, err)
		case p.Kind == wire.BackupEnd:
			return nil
		}
		if err := take(p); err != nil {
			return err
		}
		next++
	}
}

func cutShort(part uint64, err error) error {
	e := (*Error)(nil)
	if errors.As(err, &e) && e.Code == wire.CodeBackup {
		return e
	}
	return newError(wire.CodeBackup, "the connection broke at part %d", part).because(err)
}
