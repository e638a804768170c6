package check

import (
	"fmt"
	"math"
	"strings"

	"onceq/jepsen/history"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// What a node may keep when its queues are empty and it has taken a snapshot or two since.
// Each follows from what the node was told, or is written down at what it names.
const (
	// --log-bytes bounds what is in the log. Beyond are a segment that is made ahead and
	// the rest of one that begins before what stays, of the smallest size there is
	// (cluster.logSegmentMin): a log as small as that of a run has no other.
	logSegmentsMore = 2 * mib
	// logFiles are beside them: terms and votes, the list of the segments, and how far the
	// log has come.
	logFiles = 512 * kib
	// bodiesLeft is without a body: the snapshot of an empty store frees all tables
	// (fsm/storage, shrink). The list of the tables that there were stays, and what
	// says that bodies are gone.
	bodiesLeft = 1 * mib
	// Two snapshots stay (cluster.snapshotsKept). A third is there while it is written, and
	// one that is read stays longer, but not for a minute. Each has the tables of the
	// machine: sessions above all, with the outcomes of some thousand publishes.
	snapshotsKept, snapshotMost = 2, 2 * mib
	// restMost is the identity and the lock.
	restMost = 64 * kib
	// ballastMost is what the ballast takes (cluster.ballastBytesMax).
	ballastMost = 256 * mib

	// memorySpare is what a node's heap may take beside the memory for messages before the
	// collector works without a pause (cmd/onceq, memorySpare). memoryMore is generous,
	// for what is no heap: the binary, stacks, files that are mapped.
	memorySpare, memoryMore = 200 * mib, 128 * mib
)

// Over says what of a node's disk and memory is above what it may be when everything is
// drained, "" if nothing is.
func Over(l history.Limits, b history.Bytes) string {
	var all []string
	for _, x := range []struct {
		what       string
		have, most uint64
	}{
		{"log", b.Log, l.Log + logSegmentsMore + logFiles},
		{"bodies", b.Bodies, bodiesLeft},
		{"snapshots", b.Snapshots, snapshotsKept * snapshotMost},
		{"ballast", b.Ballast, ballastMost},
		{"rest", b.Rest, restMost},
		{"memory", b.Resident, memoryMost(l)},
	} {
		if x.have > x.most {
			all = append(all, fmt.Sprintf("%s %d KiB, at most %d", x.what, x.have/kib, x.most/kib))
		}
	}
	if b.Kept > snapshotsKept {
		all = append(all, fmt.Sprintf("%d snapshots, at most %d", b.Kept, snapshotsKept))
	}
	return strings.Join(all, "; ")
}

// memoryMost is what a process may have in the end.
func memoryMost(l history.Limits) uint64 {
	if !l.Memory {
		return math.MaxUint64
	}
	return l.Bodies + memorySpare + memoryMore
}

// memoryPeak is what it may have had at any moment: twice as much of messages before
// whoever brings more has to wait. With next to no memory for them it is what a start
// takes, which reads a log and a snapshot whatever there is for messages.
func memoryPeak(l history.Limits) uint64 {
	if !l.Memory {
		return math.MaxUint64
	}
	return 2*max(l.Bodies, startMemory) + memorySpare + memoryMore
}

const startMemory = 256 * mib

// bounded: what is done with leaves disk and memory. Files may stay for a moment, until a
// snapshot or a compaction is over, so a node is judged by the best that was seen of it
// after the drain, and only when that was waited for.
func bounded(v *view, r *Report) {
	l := v.setup.Limits
	if l == nil {
		return
	}
	peaked := map[string]bool{}
	for _, o := range v.sizes {
		if most := memoryPeak(*l); o.Sizes.Peak > most && !peaked[o.Node] {
			peaked[o.Node] = true
			r.broken("bounded", o.Node, []op{o}, "%s had %d MiB of memory, at most %d MiB are explained", o.Node, o.Sizes.Peak/mib, most/mib)
		}
	}
	for _, t := range v.tidies {
		if t.Type != history.Fail || t.T1-t.T0-v.stalled(t.T0, t.T1) <= stuckMost {
			continue
		}
		last, fits := map[string]op{}, map[string]bool{}
		for _, o := range v.sizes {
			if t.T0 <= o.T0 && o.T1 <= t.T1 {
				last[o.Node] = o
				fits[o.Node] = fits[o.Node] || Over(*l, *o.Sizes) == ""
			}
		}
		for _, o := range v.sizes {
			if last[o.Node].Event == o.Event && !fits[o.Node] {
				r.broken("bounded", o.Node, []op{t, o}, "%.0f s after the queues were empty %s still has: %s", float64(o.T1-t.T0)/1e9, o.Node, Over(*l, *o.Sizes))
			}
		}
	}
}
