package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/fsm"
	"onceq/transport/wire"
)

func inMemory(c *cluster.Config) { c.Bodies, c.SnapshotInterval = cluster.BodiesMemory, time.Hour }

func takeBackup(t *testing.T, cl *client.Client, o client.BackupOptions) ([]byte, client.BackupSummary) {
	t.Helper()
	var file bytes.Buffer
	s, err := cl.Admin().Backup(bounded(t), &file, o)
	if err != nil {
		t.Fatalf("backup: %v", err)
	}
	if s.Bytes != int64(file.Len()) {
		t.Errorf("the summary says %d bytes, the file has %d", s.Bytes, file.Len())
	}
	if read, err := client.ReadBackup(bytes.NewReader(file.Bytes()), nil, nil); err != nil || read != s {
		t.Fatalf("read back %+v, %v, wrote %+v", read, err, s)
	}
	return file.Bytes(), s
}

func restoreBackup(t *testing.T, cl *client.Client, file []byte, o client.RestoreOptions) client.RestoreSummary {
	t.Helper()
	s, err := cl.Admin().Restore(bounded(t), bytes.NewReader(file), o)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	return s
}

// A snapshot that has rotted is no reason to go without a backup, or to end a node: what
// it was taken of is all there, perhaps on this node alone.
func TestBackup_TheSnapshotIsDamaged_TakesAnother(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 50)
	mustSnapshot(t, c.Node(0))
	rotSnapshots(t, c.Node(0))
	if _, s := takeBackup(t, cl, client.BackupOptions{}); s.Bodies != 50 {
		t.Errorf("the backup has %d messages", s.Bodies)
	}
	if all := snapshotsOf(t, c.Node(0)); len(all) != 2 {
		t.Errorf("snapshots %v, want the damaged one and another", all)
	}
	c.RestartAll()
	c.WaitLeader()
	if left := snapshotsOf(t, c.Node(0)); len(left) != 1 {
		t.Errorf("after a start there are %v", left)
	}
}

// A backup is made of one cluster while it works, by a node that keeps its bodies
// in one way, and goes into another that keeps them in the other, one node of
// which is down meanwhile.
func TestBackup_GoesIntoANewCluster(t *testing.T) {
	for name, bodies := range map[string][2]clustertest.Option{
		"from memory to disk": {inMemory, onDisk}, "from disk to memory": {onDisk, inMemory}, "from disk to disk": {onDisk, onDisk},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 1200
			old := clustertest.New(t, 3, bodies[0], clustertest.Steady)
			createQueue(t, old, "orders", wire.QueueSettings{DeliveryLimit: 7})
			createQueue(t, old, "later", wire.QueueSettings{})
			cl := connect(t, old)
			backlog(t, cl, "orders", 0, n)
			later := producerOf(t, cl, "later")
			for i := range 3 {
				if _, err := later.Publish(bounded(t), client.Message{Body: []byte{byte(i)}, Delay: time.Hour}); err != nil {
					t.Fatal(err)
				}
			}
			// Ten are leased, and none of them is done.
			held, release := newReceived(), make(chan struct{})
			stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error {
				held.note(d)
				select {
				case <-release:
				case <-t.Context().Done(): // the test has failed
				}
				return errors.New("not done")
			}, client.WithPrefetch(10), client.WithConcurrency(10))
			held.waitFor(t, 10)
			leader := old.WaitLeader()
			file, s := takeBackup(t, cl, client.BackupOptions{})
			if s.Head.Node == leader.NodeID || s.Head.Messages != n+3 || s.Head.Queues != 2 || s.Head.Incarnation != leader.Status().Incarnation {
				t.Errorf("made by %s with leader %s: %+v", s.Head.Node, leader.NodeID, s.Head)
			}
			backlog(t, cl, "orders", n, n+50) // not in the backup
			close(release)
			stop()

			c := clustertest.New(t, 3, bodies[1], clustertest.Steady)
			down := c.Others(c.WaitLeader())[0]
			waitVersion(t, c, fsm.MachineVersion) // until then nobody knows what the node can apply
			c.Kill(down)
			to := connect(t, c)
			done := restoreBackup(t, to, file, client.RestoreOptions{})
			c.Restart(down)
			c.WaitCaughtUp()
			c.DigestsAgree()
			for _, n := range c.Up() {
				clustertest.Eventually(t, func() string {
					if got := n.Status().Incarnation; got != done.Incarnation {
						return fmt.Sprintf("%s is in life %016x, restored was %016x", n.NodeID, got, done.Incarnation)
					}
					return ""
				})
				mustSnapshot(t, n)
			}
			c.RestartAll()
			c.WaitCaughtUp()
			wantCounts(t, c, "later", func(k wire.QueueCounts) bool { return k.Delayed == 3 && k.Stored == 3 })
			backlog(t, to, "orders", n, n+20)
			got := newReceived()
			stop = consume(t, to, "orders", func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
			got.waitFor(t, n+20)
			waitSettled(t, c, "orders")
			stop()
			for _, d := range got.all() {
				var i int
				if _, err := fmt.Sscanf(string(d.Body()), "%d ", &i); err != nil || string(d.Body()) != backlogBody(i) {
					t.Fatalf("body %.20q: %v", d.Body(), err)
				}
				if d.Restored() != (i < n) || d.ID().Incarnation != done.Incarnation {
					t.Errorf("message %d of life %016x: restored %v", i, d.ID().Incarnation, d.Restored())
				}
			}
			if len(got.bodies) != n+20 || got.attempts[2] != 10 || got.attempts[1] != n+10 {
				t.Errorf("%d messages, attempts %v: ten had been handed out before the backup", len(got.bodies), got.attempts)
			}
			c.DigestsAgree()
		})
	}
}

// The leader dies in the middle of a restore, twice: it goes on at the next one,
// and the replicas agree.
func TestRestore_LeaderKilled_GoesOn(t *testing.T) {
	t.Parallel()
	const n = 4000
	old := clustertest.New(t, 1, inMemory)
	createQueue(t, old, "orders", wire.QueueSettings{})
	from := connect(t, old)
	backlog(t, from, "orders", 0, n)
	file, s := takeBackup(t, from, client.BackupOptions{})

	c := clustertest.New(t, 3, onDisk)
	cl := connect(t, c)
	kills := 0
	restoreBackup(t, cl, file, client.RestoreOptions{Progress: func(p client.Progress) {
		if kills < 2 && p.Bodies > uint64(kills+1)*n/3 {
			kills++
			leader := c.WaitLeader()
			c.Kill(leader)
			c.WaitOtherLeader(leader)
			c.Restart(leader)
		}
	}})
	if kills != 2 {
		t.Fatalf("%d kills in %d parts", kills, s.Parts)
	}
	// And once more right after it.
	leader := c.WaitLeader()
	c.Kill(leader)
	c.WaitOtherLeader(leader)
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
	got := newReceived()
	stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
	got.waitFor(t, n)
	waitSettled(t, c, "orders")
	stop()
	if len(got.bodies) != n {
		t.Errorf("%d different messages of %d", len(got.bodies), n)
	}
}

// A follower is asked first. One that clients reach and the other nodes do not has not
// got what is confirmed, and says so, for the next node to be asked.
func TestBackup_AFollowerIsCutOff_AnotherNodeMakesIt(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk, clustertest.Steady)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 20)
	c.WaitCaughtUp()
	cut := c.Others(c.WaitLeader())[0]
	c.Isolate(cut)
	backlog(t, cl, "orders", 20, 40)
	if _, s := takeBackup(t, cl, client.BackupOptions{}); s.Head.Node == cut.NodeID || s.Bodies != 40 {
		t.Errorf("%s is cut off, and the backup is of %s, with %d messages", cut.NodeID, s.Head.Node, s.Bodies)
	}
	// As often as it is asked: none of these keeps one of the backups that it may make.
	var asked sync.WaitGroup
	for range 2 {
		asked.Go(func() {
			_, err := cl.Admin().Backup(bounded(t), io.Discard, client.BackupOptions{Node: cut.NodeID})
			if want := "it is behind"; !errors.Is(err, client.ErrBackup) || !strings.Contains(err.Error(), want) {
				t.Errorf("asked for by name: %v, want %q", err, want)
			}
		})
	}
	asked.Wait()
	c.Heal()
	c.WaitCaughtUp()
	if _, s := takeBackup(t, cl, client.BackupOptions{Node: cut.NodeID}); s.Bodies != 40 {
		t.Errorf("after the heal: %d messages", s.Bodies)
	}
}

// Whoever makes the backup dies in the middle: the error says so, and nobody takes
// what was written for a backup.
func TestBackup_NodeKilled_IsAnError(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 8000)
	for _, who := range []string{"a follower", "the leader"} {
		maker := c.WaitLeader()
		if who == "a follower" {
			maker = c.Others(maker)[0]
		}
		var file bytes.Buffer
		killed := false
		_, err := cl.Admin().Backup(bounded(t), &file, client.BackupOptions{Node: maker.NodeID, Progress: func(client.Progress) {
			if !killed {
				killed = true
				c.Kill(maker)
			}
		}})
		if !errors.Is(err, client.ErrBackup) {
			t.Errorf("%s was killed: %v", who, err)
		}
		if _, err := client.ReadBackup(&file, nil, nil); !errors.Is(err, client.ErrBadBackup) {
			t.Errorf("what %s has left is read: %v", who, err)
		}
		c.WaitLeader()
		c.Restart(maker)
		c.WaitCaughtUp()
	}
	if _, s := takeBackup(t, cl, client.BackupOptions{}); s.Bodies != 8000 {
		t.Errorf("a backup afterwards: %+v", s)
	}
}

// A restore replaces only what it was told to.
func TestRestore_Refusals(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 10)
	file, _ := takeBackup(t, cl, client.BackupOptions{})
	restore := func(file []byte, o client.RestoreOptions) (client.RestoreSummary, error) {
		return cl.Admin().Restore(bounded(t), bytes.NewReader(file), o)
	}
	backlog(t, cl, "orders", 10, 20)
	if _, err := restore(file, client.RestoreOptions{}); !errors.Is(err, client.ErrNotEmpty) {
		t.Errorf("into a cluster with queues: %v", err)
	}
	bad := bytes.Clone(file)
	bad[len(bad)-100] ^= 1
	if _, err := restore(bad, client.RestoreOptions{Force: true}); !errors.Is(err, client.ErrBadBackup) {
		t.Errorf("a damaged one: %v", err)
	}
	if _, err := restore(file[:len(file)-1], client.RestoreOptions{Force: true}); !errors.Is(err, client.ErrBadBackup) {
		t.Errorf("one that was cut short: %v", err)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Ready == 20 && k.Stored == 20 })
	first, err := restore(file, client.RestoreOptions{Force: true})
	if err != nil || first.Already {
		t.Fatalf("by force: %+v, %v", first, err)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Ready == 10 && k.Stored == 10 })
	again, err := restore(file, client.RestoreOptions{})
	if err != nil || !again.Already || again.Incarnation != first.Incarnation {
		t.Errorf("the same once more: %+v, %v", again, err)
	}
	twice, err := restore(file, client.RestoreOptions{Force: true})
	if err != nil || twice.Already || twice.Incarnation == first.Incarnation {
		t.Errorf("the same once more by force: %+v, %v", twice, err)
	}
	// One that is under way keeps out others, unless they say so.
	replaced := false
	_, err = cl.Admin().Restore(bounded(t), bytes.NewReader(file), client.RestoreOptions{Force: true, Progress: func(client.Progress) {
		if replaced {
			return
		}
		replaced = true
		if _, err := restore(file, client.RestoreOptions{Force: true}); !errors.Is(err, client.ErrRestoreStale) {
			t.Errorf("beside another: %v", err)
		}
		if _, err := restore(file, client.RestoreOptions{Force: true, Replace: true}); err != nil {
			t.Errorf("in the place of another: %v", err)
		}
	}})
	if !errors.Is(err, client.ErrRestoreStale) {
		t.Errorf("one that was replaced: %v", err)
	}
	// One that is interrupted has changed nothing, and is not in the way of the next.
	ctx, interrupt := context.WithCancel(t.Context())
	_, err = cl.Admin().Restore(ctx, bytes.NewReader(file), client.RestoreOptions{Force: true, Progress: func(client.Progress) { interrupt() }})
	if !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("one that was interrupted: %v", err)
	}
	if _, err := restore(file, client.RestoreOptions{Force: true}); err != nil {
		t.Errorf("after one that was interrupted: %v", err)
	}
	c.DigestsAgree()
}

// Producers and a consumer work while the cluster is restored under them, more
// than once. Everything in flight ends stored, unknown for good, or is sent in
// the new life; no message is there twice; and each late copy of what was ever
// sent is answered from its record or refused.
func TestRestore_UnderLoad_NothingIsStoredTwice(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	proxy := clustertest.NewProxy(t)
	var mu sync.Mutex
	var frames [][]byte
	proxy.OnRequest(func(f wire.Frame) clustertest.Verdict {
		if f.Op == wire.OpPublish {
			mu.Lock()
			defer mu.Unlock()
			frames = append(frames, bytes.Clone(f.Payload))
		}
		return clustertest.Pass
	})
	cl, admin := connect(t, c, client.WithDialer(proxy.Dial)), connect(t, c)
	p := producerOf(t, cl, "orders")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var futures []*client.Future
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := 0; ctx.Err() == nil && i < 200_000; i++ {
			futures = append(futures, p.PublishAsync(bounded(t), client.Message{Body: fmt.Appendf(nil, "m%d", i)}))
			if i%16 == 0 { // all that is stored is consumed in the end
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	clustertest.Eventually(t, func() string {
		if info(c, "orders").Counts.Stored < 200 {
			return "nothing is published"
		}
		return ""
	})
	for range 3 {
		file, _ := takeBackup(t, admin, client.BackupOptions{})
		stored := info(c, "orders").Counts.Stored
		clustertest.Eventually(t, func() string {
			if info(c, "orders").Counts.Stored < stored+100 {
				return "publishing does not go on"
			}
			return ""
		})
		restoreBackup(t, admin, file, client.RestoreOptions{Force: true})
	}
	stored := info(c, "orders").Counts.Stored
	clustertest.Eventually(t, func() string {
		if info(c, "orders").Counts.Stored < stored+100 {
			return "the producer does not go on in the new life"
		}
		return ""
	})
	cancel()
	<-published
	unknown := 0
	confirmed := map[string]bool{}
	for i, f := range futures {
		_, err := f.Wait(bounded(t))
		u := (*client.OutcomeUnknownError)(nil)
		switch {
		case err == nil:
			confirmed[fmt.Sprintf("m%d", i)] = true
		case errors.As(err, &u) && u.Final:
			unknown++
		default:
			t.Fatalf("message %d: %v", i, err)
		}
	}
	t.Logf("%d published, %d with an unknown outcome, %d frames", len(futures), unknown, len(frames))
	k := info(c, "orders").Counts
	mu.Lock()
	late := frames
	mu.Unlock()
	for i := 0; i < len(late); i += 1 + len(late)/200 {
		r := lateCopies(t, c, late[i])
		for _, x := range r {
			if x.Status == wire.StatusOK && !x.Duplicate {
				t.Fatalf("a late copy was stored: %+v", x)
			}
		}
	}
	if now := info(c, "orders").Counts; now.Stored != k.Stored {
		t.Errorf("%d messages before the late copies, %d after", k.Stored, now.Stored)
	}
	got := newReceived()
	stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
	got.waitFor(t, int(k.Ready))
	waitSettled(t, c, "orders")
	stop()
	for body, n := range got.bodies {
		if n != 1 {
			t.Errorf("%s is there %d times", body, n)
		}
	}
	if err := p.Close(bounded(t)); err != nil {
		t.Error(err)
	}
	c.DigestsAgree()
}

// The largest message that is taken, with the help of its headers, can be restored.
func TestBackup_TheLargestMessage_ComesBack(t *testing.T) {
	t.Parallel()
	old := clustertest.New(t, 1)
	createQueue(t, old, "orders", wire.QueueSettings{})
	cl := connect(t, old)
	p := producerOf(t, cl, "orders")
	const size = 64 << 10
	m := client.Message{Body: make([]byte, 1<<20), Headers: make([]client.Header, 48)}
	for i := range m.Headers {
		m.Headers[i] = client.Header{Name: fmt.Sprintf("h%02d", i), Value: strings.Repeat("x", size)}
	}
	last := &m.Headers[47].Value
	// The last header fills an entry of the log, to ten bytes: of those between one
	// that is taken and one that is refused, halved.
	stored, refused, messages := 0, size-200, 0
	for left := size - 2200; refused-left > 10 || stored == 0; left = (stored + refused) / 2 {
		*last = strings.Repeat("x", left)
		switch _, err := p.Publish(bounded(t), m); {
		case err == nil:
			stored, messages = left, messages+1
		case !errors.Is(err, client.ErrTooLarge):
			t.Fatal(err)
		case stored == 0:
			t.Fatal("not even a much smaller one is taken")
		default:
			refused = left
		}
	}
	if refused == size-200 {
		t.Fatal("nothing was refused: there are larger ones")
	}
	file, _ := takeBackup(t, cl, client.BackupOptions{})
	c := clustertest.New(t, 1)
	to := connect(t, c)
	waitVersion(t, c, fsm.MachineVersion)
	restoreBackup(t, to, file, client.RestoreOptions{})
	got := newReceived()
	consume(t, to, "orders", func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
	got.waitFor(t, messages)
	largest := 0
	for _, d := range got.all() {
		if len(d.Body()) != len(m.Body) {
			t.Errorf("a body of %d bytes came back, want %d", len(d.Body()), len(m.Body))
		}
		largest = max(largest, len(d.Headers()[47].Value))
	}
	if largest != stored {
		t.Errorf("headers of up to %d bytes came back, want %d", largest, stored)
	}
}

// lateCopies hands the leader a frame that was sent before.
func lateCopies(t *testing.T, c *clustertest.Cluster, payload []byte) []wire.PublishResult {
	t.Helper()
	return clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.PublishReply, error) {
		ctx, cancel := context.WithTimeout(context.Background(), clustertest.Bound)
		defer cancel()
		_, reply, err := r.Call(ctx, wire.OpPublish, payload)
		if err != nil {
			return wire.PublishReply{}, err
		}
		return wire.DecodePublishReply(reply)
	}).Results
}

// All disks are lost. A new cluster is made at the same addresses and restored:
// clients that knew the old one go on, and their consumers' old leases are over.
func TestRestore_AllDisksLost_ClientsGoOn(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 100)
	p := producerOf(t, cl, "orders")
	if _, err := p.Publish(bounded(t), client.Message{Body: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	var first sync.Once
	holding, got := make(chan *client.Delivery, 1), newReceived()
	stop := consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		first.Do(func() {
			holding <- d
			<-ctx.Done() // until its lease is found lost
		})
		got.note(d)
		return ctx.Err()
	}, client.WithPrefetch(1))
	held := <-holding
	file, s := takeBackup(t, cl, client.BackupOptions{})
	for _, n := range c.Up() {
		c.Kill(n)
		c.Wipe(n)
	}
	f := p.PublishAsync(bounded(t), client.Message{Body: []byte("meanwhile")})
	c.Restart(c.Node(0), c.Node(1), c.Node(2))
	admin := connect(t, c)
	done := restoreBackup(t, admin, file, client.RestoreOptions{})
	if s.Head.Cluster == c.WaitLeader().Status().Cluster {
		t.Fatal("the new cluster has the id of the old one")
	}
	// What was not sent before goes out in the new life; if the old connection took
	// it, nobody can tell.
	u := (*client.OutcomeUnknownError)(nil)
	if r, err := f.Wait(bounded(t)); err != nil && !(errors.As(err, &u) && u.Final) {
		t.Errorf("a publish in between: %+v, %v", r, err)
	}
	if r, err := p.Publish(bounded(t), client.Message{Body: []byte("after")}); err != nil || r.Message.Incarnation != done.Incarnation {
		t.Errorf("a publish afterwards: %+v, %v", r, err)
	}
	// The first one was handed out in both lives.
	clustertest.Eventually(t, func() string {
		got.mu.Lock()
		defer got.mu.Unlock()
		if got.bodies["after"] == 0 || len(got.bodies) < 102 {
			return fmt.Sprintf("%d messages have come", len(got.bodies))
		}
		return ""
	})
	if err := held.Ack(bounded(t)); err == nil {
		t.Error("an ack of a lease from before the restore counts")
	}
	stop()
	if got.bodies["after"] != 1 || got.bodies["before"] != 1 {
		t.Errorf("before: %d times, after: %d times", got.bodies["before"], got.bodies["after"])
	}
	c.DigestsAgree()
}
