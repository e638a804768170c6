package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/proc"
	"onceq/transport/wire"
)

func kill(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	pid := t.Cluster.Pid(node)
	if err := t.Cluster.Kill(node); err != nil || pid == 0 {
		return node, false, fmt.Sprint("it was down: ", err)
	}
	wait(ctx, between(r, 0, 6*time.Second))
	t.start(node)
	return node, true, fmt.Sprintf("process %d is gone", pid)
}

func (t *Target) start(node string) {
	if s, _ := t.Cluster.State(node); s == proc.Down {
		t.try(t.Cluster.Start(node))
	}
}

func restartAll(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.killAtOnce(ctx, r, t.Cluster.Names())
}

func killMajority(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.killAtOnce(ctx, r, t.majority(r))
}

// majority draws nodes without which the others can do nothing.
func (t *Target) majority(r *rand.Rand) []string {
	names := t.Cluster.Names()
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:len(names)/2+1]
}

func (t *Target) killAtOnce(ctx context.Context, r *rand.Rand, names []string) (string, bool, string) {
	killed := 0
	done := make(chan bool, len(names))
	for _, n := range names {
		go func() { // waited for below
			pid := t.Cluster.Pid(n)
			done <- t.Cluster.Kill(n) == nil && pid != 0
		}()
	}
	for range names {
		if <-done {
			killed++
		}
	}
	wait(ctx, between(r, 0, 2*time.Second))
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, n := range names {
		t.start(n)
		wait(ctx, between(r, 0, 500*time.Millisecond))
	}
	return strings.Join(names, ","), killed == len(names), fmt.Sprintf("%d processes are gone", killed)
}

func stop(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	pid := t.Cluster.Pid(node)
	err := t.Cluster.Stop(node)
	t.try(err)
	wait(ctx, between(r, 0, 3*time.Second))
	t.start(node)
	return node, err == nil && pid != 0, fmt.Sprintf("process %d has ended", pid)
}

func pause(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.pauseFor(ctx, t.one(r), between(r, 0, 6*time.Second))
}

// pauseLong is longer than anybody waits for a node that says nothing.
func pauseLong(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.Leader()
	if node == "" {
		return "", false, "nobody leads"
	}
	return t.pauseFor(ctx, node, between(r, 11*time.Second, 15*time.Second))
}

func (t *Target) pauseFor(ctx context.Context, node string, d time.Duration) (string, bool, string) {
	if err := t.Cluster.Pause(node); err != nil {
		return node, false, err.Error()
	}
	wait(ctx, settle) // what it was about to answer
	silent := !t.Answers(ctx, node)
	wait(ctx, d)
	t.goOn([]string{node})
	return node, silent, map[bool]string{true: "it did not answer", false: "it answered"}[silent]
}

// settle is how long a signal may take to have its effect.
const settle = 50 * time.Millisecond

func pauseAll(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.pauseAtOnce(ctx, r, t.Cluster.Names())
}

func pauseMajority(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.pauseAtOnce(ctx, r, t.majority(r))
}

func (t *Target) pauseAtOnce(ctx context.Context, r *rand.Rand, names []string) (string, bool, string) {
	paused := t.still(names)
	wait(ctx, settle)
	silent := len(paused) > 0 && !t.Answers(ctx, paused[r.IntN(len(paused))])
	frozen := t.H.Invoke(history.Event{Proc: "nemesis", F: history.Frozen})
	before := t.frozen()
	wait(ctx, between(r, time.Second, 6*time.Second))
	// Another fault may have ended and started nodes meanwhile.
	if after := t.frozen(); before != "" && before == after {
		t.H.Complete(frozen, history.OK)
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, n := range names {
		t.goOn([]string{n})
		wait(ctx, between(r, 0, 50*time.Millisecond))
	}
	return strings.Join(paused, ","), silent, fmt.Sprintf("%d stood still and did not answer", len(paused))
}

// still lets nodes stand still and returns those that do.
func (t *Target) still(names []string) (paused []string) {
	for _, n := range names {
		if t.Cluster.Pause(n) == nil {
			paused = append(paused, n)
		}
	}
	return paused
}

// goOn lets nodes go on that still returned, unless another fault has ended them
// meanwhile.
func (t *Target) goOn(paused []string) {
	for _, n := range paused {
		if s, _ := t.Cluster.State(n); s == proc.Paused {
			t.try(t.Cluster.Resume(n))
		}
	}
}

// pauseKill is the moment of truth for "confirmed means that a majority has it":
// what the leader answered while nobody else could write is gone with it.
func pauseKill(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	leader := t.Leader()
	pid := t.Cluster.Pid(leader)
	if leader == "" || pid == 0 {
		return leader, false, "nobody leads"
	}
	paused := t.still(t.others(leader))
	wait(ctx, between(r, 50*time.Millisecond, time.Second))
	err := t.Cluster.Kill(leader)
	t.goOn(paused)
	wait(ctx, between(r, time.Second, 5*time.Second))
	t.start(leader)
	return leader, err == nil && len(paused) > 0, fmt.Sprintf("process %d is gone, %v stood still", pid, paused)
}

// frozen names the lives of all nodes if every one stands still, else it is "".
func (t *Target) frozen() string {
	lives := ""
	for _, n := range t.Cluster.Names() {
		s, life := t.Cluster.State(n)
		if s != proc.Paused {
			return ""
		}
		lives += fmt.Sprint(n, ":", life, " ")
	}
	return lives
}

// losable are the requests whose effect lasts.
var losable = []wire.Op{
	wire.OpPublish, wire.OpSettle, wire.OpAttach, wire.OpLeave, wire.OpOpenSession, wire.OpCloseSession, wire.OpSeal, wire.OpAckPublish,
	wire.OpReceive, wire.OpRelease, wire.OpQueueCreate, wire.OpQueueDelete, wire.OpQueuePurge, wire.OpQueueUpdate, wire.OpQueuePause,
	wire.OpEdit, wire.OpRedrive, wire.OpRestoreBegin, wire.OpRestoreChunk, wire.OpRestoreEnd,
}

func lostReply(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	var ops []wire.Op // that this run makes use of
	for _, op := range losable {
		if t.Net.Asked(op) {
			ops = append(ops, op)
		}
	}
	switch {
	case len(ops) == 0:
		ops = losable
	case r.IntN(2) == 0: // one kind only
		ops = ops[r.IntN(len(ops)):][:1]
	}
	lost := 0
	node := ""
	for range 3 + r.IntN(10) {
		if l := t.Leader(); l != "" {
			node = l
		}
		if node == "" {
			wait(ctx, 200*time.Millisecond)
			continue
		}
		loss := t.Net.LoseReplies(node, "", 1+r.IntN(4), ops...)
		trying, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		select {
		case <-loss.Done():
		case <-trying.Done():
		}
		cancel()
		lost += t.Net.Stop(loss)
		wait(ctx, between(r, 0, 300*time.Millisecond))
	}
	return node, lost > 0, fmt.Sprintf("%d replies of %v", lost, ops)
}

func cut(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	n := 0
	for range 2 + r.IntN(8) {
		n += t.Net.Cut("", "")
		if !wait(ctx, between(r, 50*time.Millisecond, 800*time.Millisecond)) {
			break
		}
	}
	return "", n > 0, fmt.Sprintf("%d connections were reset", n)
}

func hold(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.linked(r)
	ways := [][]proxyDirection{{toServer}, {toClient}, {toServer, toClient}}[r.IntN(3)]
	before := t.Net.Stood(node)
	for _, d := range ways {
		t.Net.Hold(node, d, true)
	}
	d := between(r, 500*time.Millisecond, 5*time.Second)
	late := r.IntN(3) == 0
	if late {
		// Until clients have given up and gone elsewhere: then what they sent arrives.
		d += 9 * time.Second
	}
	wait(ctx, d)
	n := 0
	if !late && r.IntN(2) == 0 {
		n = t.Net.Cut(node, "") // what was held is lost
	}
	for _, d := range ways {
		t.Net.Hold(node, d, false)
	}
	stood := t.Net.Stood(node) - before
	return node, stood > 0, fmt.Sprintf("%d frames on %d ways stood still, %d links were cut", stood, len(ways), n)
}

// DelayMost is how late a frame can be through the delay fault.
const DelayMost = 225 * time.Millisecond

func delay(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.linked(r)
	d := between(r, 5*time.Millisecond, DelayMost*2/3)
	t.Net.Delay(node, d, d/2)
	wait(ctx, between(r, time.Second, 5*time.Second))
	t.Net.Delay(node, 0, 0)
	n := t.Net.Late(node)
	return node, n > 0, fmt.Sprintf("%v for %d frames", d, n)
}
