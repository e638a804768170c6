package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"onceq/jepsen/proc"
)

// rolledBack is by how many entries a log must have grown since it was copied. That
// many are never under way at one time, so the copy lacks some that were acknowledged.
const rolledBack = 200

// rollback gives a node that is down the log that it had some time ago, as a disk does
// that is restored from an image. Everything in it fits together and has the right
// checksums; the node must know by itself that it has acknowledged more, and neither
// vote nor serve.
func rollback(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	healing := context.WithoutCancel(ctx)
	if why := t.fragile(ctx); why != "" {
		return "", false, why
	}
	node := t.one(r)
	before := t.serverID(ctx, node)
	logs, err := filepath.Glob(filepath.Join(t.Cluster.DataDir(node), "groups", "*", "log", "wal"))
	if err != nil || len(logs) != 1 {
		return node, false, fmt.Sprintf("%d logs, %v", len(logs), err)
	}
	if err := t.Cluster.Stop(node); err != nil {
		t.start(node)
		return node, false, err.Error()
	}
	copied, err := os.MkdirTemp("", "onceq-jepsen-rollback-")
	if err != nil {
		t.start(node)
		return node, false, err.Error()
	}
	defer os.RemoveAll(copied)
	from := uint64(0)
	for _, n := range t.Cluster.Names() {
		from = max(from, t.Applied(n))
	}
	err = os.CopyFS(copied, os.DirFS(logs[0]))
	t.start(node)
	grown := func() bool { return t.Applied(node) >= from+rolledBack }
	if err != nil || !t.heed(ctx, enough, grown) {
		return node, false, fmt.Sprintf("its log is at %d, it was copied at %d: %v", t.Applied(node), from, err)
	}
	had := t.Applied(node)
	if err := t.Cluster.Kill(node); err != nil {
		return node, false, err.Error()
	}
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	if err := errors.Join(os.RemoveAll(logs[0]), os.CopyFS(logs[0], os.DirFS(copied))); err != nil {
		t.try(err)
	}
	snapshot := newestSnapshot(filepath.Join(filepath.Dir(filepath.Dir(logs[0])), "snapshots"))
	t.start(node)
	refused, answered := false, false
	t.heed(healing, enough, func() bool {
		s, _ := t.Cluster.State(node)
		refused = s == proc.Down
		answered = !refused && t.Answers(healing, node)
		return refused || answered
	})
	text := fmt.Sprintf("its log ends near %d, it had applied %d, its snapshot is at %d: ", from, had, snapshot)
	switch {
	case refused:
		text += "it did not start"
	case snapshot >= had:
		text += "the snapshot has all that the log lacks" // it may start
	case answered:
		text += "it serves"
		t.wentOn(node, text)
	}
	t.try(t.Cluster.Kill(node))
	t.Cluster.Expect(node, false)
	back, err := t.rejoin(healing, node, before)
	if err != nil {
		return node, refused, text + "; " + err.Error()
	}
	return node, refused, text + "; " + back
}

// newestSnapshot is the index of the newest snapshot in a directory, whose
// subdirectories are called term-index-time, 0 if there is none.
func newestSnapshot(dir string) (index uint64) {
	entries, _ := os.ReadDir(dir) // none is fine
	for _, e := range entries {
		parts := strings.Split(e.Name(), "-")
		if len(parts) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(parts[1], 10, 64); err == nil {
			index = max(index, n)
		}
	}
	return index
}
