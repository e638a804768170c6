package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/proc"
)

func damageFaults() []Fault {
	needs := []Need{NeedThree}
	return []Fault{
		{Name: "damage", What: "bits of a node's files are flipped, or files truncated or removed, while it is down: it must refuse, is wiped and joins again", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: damage},
		{Name: "rollback", What: "a node comes back with the log that it had some time ago: it must refuse, is wiped and joins again", Needs: needs, Away: One, Field: fieldDisk, Weight: 1, run: rollback},
		{Name: "wipe", What: "a node loses its data directory's content (onceq node wipe) and joins again", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: wipe},
	}
}

// kind is a kind of files that a node has, by how their paths end below the data
// directory.
type kind struct {
	name, pattern string
	late          bool // it is read when a message of it is handed out, not at the start
}

var kinds = []kind{
	{"log", "groups/*/log/wal/*.wal", false},
	{"log", "groups/*/log/wal/*.wal", false}, // the most important, so twice
	{"log's index", "groups/*/log/wal/wal-meta.db", false},
	{"stable store", "groups/*/log/stable.db", false},
	{"snapshot", "groups/*/snapshots/*/state.bin", false},
	{"snapshot's description", "groups/*/snapshots/*/meta.json", false},
	{"snapshot's bodies", "groups/*/snapshots/*/annex/*.sst", true},
	{"high-water file", "groups/*/log/highwater", false},
}

// lateMost is how long a node may go on with damage that it has not come across.
// Then it is wiped: another one may be damaged next.
const lateMost = 15 * time.Second

// damage spoils a file of a node that is down. The node must notice: it does not
// start, or verify says so. What verify calls whole was not in use.
func damage(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	healing := context.WithoutCancel(ctx)
	if why := t.fragile(ctx); why != "" {
		return "", false, why
	}
	node := t.one(r)
	before := t.serverID(ctx, node)
	if err := t.Cluster.Kill(node); err != nil {
		return node, false, err.Error()
	}
	dir := t.Cluster.DataDir(node)
	k, what, err := spoil(dir, r)
	if err != nil {
		t.start(node)
		return node, false, err.Error()
	}
	found, err := t.Cluster.Verify(healing, node)
	t.try(err)
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	t.start(node)
	refused := false
	served := t.heed(healing, enough, func() bool {
		s, _ := t.Cluster.State(node)
		refused = s == proc.Down
		return refused || t.Answers(healing, node)
	})
	if k.late && served && !refused {
		return t.damagedLate(healing, node, before, what)
	}
	switch {
	case len(found.Problems) == 0 && !refused && served:
		return node, false, what + ": it was not in use"
	case served && !refused && found.InUse():
		t.wentOn(node, what+": it serves, with "+found.Problems[0])
		fallthrough
	case !refused:
		// Verify reads more than a start does; what it has found the node finds later.
		t.try(t.Cluster.Kill(node))
	}
	t.Cluster.Expect(node, false)
	text := what + ": "
	switch {
	case refused:
		text += "it did not start"
	case len(found.Problems) > 0:
		text += "verify found it: " + found.Problems[0]
	default:
		text += "it neither ended nor answered"
		t.Report("%s: %s", node, text)
	}
	back, err := t.rejoin(healing, node, before)
	if err != nil {
		return node, true, text + "; " + err.Error()
	}
	return node, true, text + "; " + back
}

// damagedLate lets a node with damaged bodies lead, since who leads reads them.
func (t *Target) damagedLate(ctx context.Context, node, before, what string) (string, bool, string) {
	leading, cancel := context.WithTimeout(ctx, askTimeout)
	err := t.Transfer(leading, node)
	cancel()
	ended := t.heed(ctx, lateMost, func() bool { s, _ := t.Cluster.State(node); return s == proc.Down })
	t.try(t.Cluster.Kill(node))
	t.Cluster.Expect(node, false)
	text := what + ": nothing of it was read"
	if ended {
		text = what + ": it ended when it read that"
	} else if err != nil {
		text += " (it does not lead: " + err.Error() + ")"
	}
	back, err := t.rejoin(ctx, node, before)
	if err != nil {
		return node, ended, text + "; " + err.Error()
	}
	return node, ended, text + "; " + back
}

// wentOn reports a node that serves although it must not.
func (t *Target) wentOn(node, text string) {
	now := t.H.Now()
	t.H.Add(history.Event{Proc: "nemesis", F: history.WentOn, Type: history.OK, Of: -1, Node: node, T0: now, T1: now, Text: text})
}

// rejoin wipes a node that is down, starts it and waits until it votes under
// another server id than before.
func (t *Target) rejoin(ctx context.Context, node, before string) (string, error) {
	began := time.Now()
	if out, code, err := t.Cluster.Tool(ctx, "node", "wipe", "--yes", t.Cluster.DataDir(node)); err != nil || code != 0 {
		return "", fmt.Errorf("wipe: exit code %d: %s: %w", code, out, err)
	}
	t.start(node)
	if err := t.votes(ctx, node, before); err != nil {
		return "", err
	}
	return fmt.Sprintf("wiped, it votes again after %.1f s", time.Since(began).Seconds()), nil
}

func wipe(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	if why := t.fragile(ctx); why != "" {
		return "", false, why
	}
	node := t.one(r)
	before := t.serverID(ctx, node)
	end := t.Cluster.Kill
	if r.IntN(2) == 0 {
		end = t.Cluster.Stop
	}
	if err := end(node); err != nil {
		return node, false, err.Error()
	}
	wait(ctx, between(r, 0, 2*time.Second))
	text, err := t.rejoin(context.WithoutCancel(ctx), node, before)
	if err != nil {
		return node, false, err.Error()
	}
	return node, true, text
}

// spoil changes one file below dir and says what it did.
func spoil(dir string, r *rand.Rand) (k kind, what string, err error) {
	k = kinds[r.IntN(len(kinds))]
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(k.pattern)))
	if err != nil || len(files) == 0 {
		return k, "", errors.Join(err, fmt.Errorf("there is no %s", k.name))
	}
	slices.Sort(files)
	path := files[len(files)-1] // the newest
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return k, "", err
	}
	if r.IntN(8) == 0 {
		return k, fmt.Sprintf("%s (%s): removed", k.name, rel), os.Remove(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return k, "", err
	}
	what, err = spoilFile(f, r)
	err = errors.Join(err, f.Sync(), f.Close())
	return k, fmt.Sprintf("%s (%s): %s", k.name, rel, what), err
}

func spoilFile(f *os.File, r *rand.Rand) (string, error) {
	used, err := usedBytes(f)
	if err != nil {
		return "", err
	}
	if used == 0 {
		return "", fmt.Errorf("%s is empty", f.Name())
	}
	at := r.Int64N(used)
	switch r.IntN(4) {
	case 0:
		return fmt.Sprintf("truncated to %d of %d bytes", at, used), f.Truncate(at)
	case 1:
		n := min(used-at, 1+r.Int64N(4096))
		_, err := f.WriteAt(make([]byte, n), at)
		return fmt.Sprintf("%d bytes from %d on are zero", n, at), err
	default:
		n := 1 + r.IntN(3)
		for range n {
			var b [1]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				return "", err
			}
			b[0] ^= 1 << r.IntN(8)
			if _, err := f.WriteAt(b[:], at); err != nil {
				return "", err
			}
			at = r.Int64N(used)
		}
		return fmt.Sprintf("%d bits flipped", n), nil
	}
}

// usedBytes is the length of a file without the zeros at its end: files are
// allocated before they are written.
func usedBytes(f *os.File) (int64, error) {
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return 0, err
	}
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return int64(n), nil
}

// fragile says why no node may lose what it has now: another one is not whole, so
// that both together would be more than a minority. "" when all are.
func (t *Target) fragile(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, enough)
	defer cancel()
	why := ""
	t.heed(ctx, enough, func() bool {
		why = t.whole(ctx)
		return why == ""
	})
	return why
}

// whole says which node does not vote or is behind.
func (t *Target) whole(ctx context.Context) string {
	for _, n := range t.Cluster.Names() {
		if s, _ := t.Cluster.State(n); s != proc.Running {
			return fmt.Sprintf("%s is %s", n, s)
		}
		if err := t.isVoter(ctx, n, ""); err != nil {
			return err.Error()
		}
	}
	if err := t.CaughtUp(ctx); err != nil {
		return err.Error()
	}
	return ""
}
