package workload

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

const (
	backupTry    = 20 * time.Second // of one backup, restore or emptying
	roundBefore  = 20               // messages of a round that are sent before its backup
	roundAfter   = 20               // and after it
	lateCopies   = 3                // of each, after the restore
	settlingTime = 5 * time.Second  // of one copy
)

// backups goes in rounds: publishes, a backup, more publishes, the backup back over
// the cluster, and then everything once more, late and several times. Nothing that
// the backup does not have may be there in the end.
func backups() Workload {
	return Workload{
		Name:   "backup",
		Apart:  true,
		Newest: true, // a restore
		What:   "rounds of publishes, a backup, more publishes, a restore in place, and late copies of all of them",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.Raw = int64(queueLease), true
			s.Least = history.Least{Rounds: max(1, int(seconds/20))}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			t.producers.Go(func() { rounds(producing, w, "b1") })
			t.consumers.Go(func() { leftOver(producing, consuming, w, "b2") })
			return t
		},
	}
}

// leftOver consumes what a round has left that was cut off by the end.
func leftOver(producing, ctx context.Context, w *World, name string) {
	select {
	case <-producing.Done():
	case <-ctx.Done():
	}
	c := w.connect(ctx, name)
	if c == nil {
		return
	}
	defer func() { _ = c.Close() }()
	for ctx.Err() == nil {
		_ = c.Consume(ctx, "jepsen", func(context.Context, *client.Delivery) error { return nil })
		pause(ctx, 100*time.Millisecond)
	}
}

// keeper does the rounds, one after the other.
type keeper struct {
	w     *World
	name  string
	peers *peers
	c     *client.Client
	r     *rand.Rand
	round int
}

// old is a publish of a round, as it was sent first.
type old struct {
	id    string
	frame wire.PublishFrame
}

func rounds(ctx context.Context, w *World, name string) {
	k := &keeper{w: w, name: name, peers: newPeers(w, name), r: w.rng(name)}
	defer k.peers.close()
	if k.c = w.connect(ctx, name); k.c == nil {
		return
	}
	defer func() { _ = k.c.Close() }()
	for k.round = 1; ctx.Err() == nil; k.round++ {
		k.run(ctx)
	}
}

func (k *keeper) run(ctx context.Context) {
	session, ok := k.open(ctx)
	if !ok {
		return
	}
	var sent []old
	send := func(n int) {
		for range n {
			id := fmt.Sprintf("%s-%s.%d-%d", k.w.Run, k.name, k.round, len(sent)+1)
			messages := []wire.Message{wireContent(id)}
			o := old{id, wire.PublishFrame{
				Incarnation: session.Session.Incarnation, Group: session.Session.Group, Session: session.Session.Number, Epoch: session.Epoch,
				Floor: 1, Queue: "jepsen",
				Publishes: []wire.Publish{{Sequence: uint64(len(sent) + 1), Checksum: wire.PublishChecksum("jepsen", messages), Messages: messages}},
			}}
			sent = append(sent, o)
			for try := 0; try < 10 && ctx.Err() == nil && !k.copy(ctx, o); try++ {
			}
		}
	}
	send(roundBefore)
	file, ok := k.backup(ctx)
	if !ok {
		return
	}
	send(roundAfter)
	if !k.restore(ctx, file) {
		return
	}
	for range lateCopies {
		for _, i := range k.r.Perm(len(sent)) {
			if ctx.Err() != nil {
				return
			}
			k.copy(ctx, sent[i])
		}
	}
	k.empty(ctx)
	for _, i := range k.r.Perm(len(sent)) { // after what was there is gone
		k.copy(ctx, sent[i])
	}
	k.empty(ctx)
}

func (k *keeper) open(ctx context.Context) (s wire.SessionOpened, ok bool) {
	var nonce wire.Nonce
	_, _ = crand.Read(nonce[:]) // never fails
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, settlingTime)
		if c := k.peers.get(asking, k.peers.toLeader(k.r)); c != nil {
			payload, err := c.Call(asking, wire.OpOpenSession, wire.OpenSession{
				Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Nonce: nonce, Label: k.name,
			})
			if err == nil {
				s, err = wire.DecodeSessionOpened(payload)
			}
			if err == nil && s.Status == wire.StatusOK {
				cancel()
				return s, true
			}
			k.peers.answer(err)
		}
		cancel()
		pause(ctx, 100*time.Millisecond)
	}
	return s, false
}

// copy sends one copy to where the leader may be, and says whether it was answered.
func (k *keeper) copy(ctx context.Context, o old) bool {
	asking, cancel := context.WithTimeout(ctx, settlingTime)
	defer cancel()
	c := k.peers.get(asking, k.peers.toLeader(k.r))
	if c == nil {
		pause(ctx, 50*time.Millisecond)
		return false
	}
	op := k.w.H.Invoke(history.Event{Proc: k.name, Client: k.name, Node: c.Welcome.Node, F: history.Copy, ID: o.id, Life: k.round, Carried: carried(o.frame.Publishes[0].Messages[0])})
	payload, err := c.Call(asking, wire.OpPublish, o.frame)
	res, err := onlyResult(payload, err)
	switch {
	case err != nil:
		if k.peers.failed(op, err) {
			pause(ctx, 20*time.Millisecond)
		} else {
			k.w.Count.Unknown.Add(1)
		}
		return false
	case res.Status == wire.StatusOK:
		op.Seq, op.Lane, op.Dup = res.Offset, int(res.Lane), res.Duplicate
		k.w.Count.Published.Add(1)
		k.w.H.Complete(op, history.OK)
	default:
		op.Text = res.Status.String()
		k.w.Count.Refused.Add(1)
		k.w.H.Complete(op, history.Fail)
	}
	return true
}

func (k *keeper) backup(ctx context.Context) ([]byte, bool) {
	for ctx.Err() == nil {
		var file bytes.Buffer
		trying, cancel := context.WithTimeout(ctx, backupTry)
		op := k.w.H.Invoke(history.Event{Proc: k.name, Client: k.name, F: history.Backup, Life: k.round})
		s, err := k.c.Admin().Backup(trying, &file, client.BackupOptions{})
		cancel()
		if err == nil {
			op.Node = s.Head.Node
			k.w.H.Complete(op, history.OK)
			return file.Bytes(), true
		}
		op.Err = err.Error()
		k.w.H.Complete(op, history.Fail)
		pause(ctx, 100*time.Millisecond)
	}
	return nil, false
}

// restore tries until the backup is in place. A try whose end is not known is
// followed by another, and the cluster is restored twice or once.
func (k *keeper) restore(ctx context.Context, file []byte) bool {
	op := k.w.H.Invoke(history.Event{Proc: k.name, Client: k.name, F: history.Restore, Life: k.round})
	for ctx.Err() == nil {
		trying, cancel := context.WithTimeout(ctx, backupTry)
		_, err := k.c.Admin().Restore(trying, bytes.NewReader(file), client.RestoreOptions{Force: true, Replace: true})
		cancel()
		if err == nil {
			k.w.H.Complete(op, history.OK)
			return true
		}
		op.Err = err.Error()
		pause(ctx, 100*time.Millisecond)
	}
	k.w.H.Complete(op, history.Info)
	return false
}

// empty consumes what is there. Messages of rounds before are from a restore that
// was cut off, and are no part of this one.
func (k *keeper) empty(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backupTry)
	defer cancel()
	consuming, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	mine := fmt.Sprintf("%s-%s.%d-", k.w.Run, k.name, k.round)
	wg.Go(func() {
		_ = k.c.Consume(consuming, "jepsen", func(_ context.Context, d *client.Delivery) error {
			if id, bad := idOf(d.Body(), d.BizID()); strings.HasPrefix(id, mine) {
				now := k.w.H.Now()
				e := history.Event{Proc: k.name, Client: k.name, F: history.Found, Type: history.OK, Of: -1, T0: now, T1: now,
					ID: id, Life: k.round, Seq: d.ID().Offset, Lane: int(d.ID().Lane), Attempt: d.Attempt(), Seen: d.Restored(), Carried: carriedTo(d)}
				if bad != nil {
					e.Err = bad.Error()
				}
				k.w.H.Add(e)
			}
			k.w.Count.Delivered.Add(1)
			return nil
		})
	})
	gone := false
	for !gone && pause(ctx, 50*time.Millisecond) {
		q, err := k.c.Admin().Queue(ctx, "jepsen")
		gone = err == nil && q.Counts.Ready+q.Counts.Leased+q.Counts.Delayed+q.Counts.Parked == 0
	}
	stop()
	wg.Wait()
	if gone {
		now := k.w.H.Now()
		k.w.H.Add(history.Event{Proc: k.name, Client: k.name, F: history.Emptied, Type: history.OK, Of: -1, T0: now, T1: now, Life: k.round})
	}
}
