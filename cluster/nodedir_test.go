package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/raftlog"
)

// logDir is where a node keeps its log.
func logDir(n *clustertest.Node) string { return filepath.Join(n.Dir, "groups", "1", "log") }

// tail is a node's newest log segment, and how much of it is used.
func tail(t *testing.T, n *clustertest.Node) (path string, all, used []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(logDir(n), "wal", "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segment: %v", err)
	}
	path = names[len(names)-1]
	if all, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return path, all, bytes.TrimRight(all, "\x00")
}

// flipTail flips a bit so many bytes before the end, in the file of a node that
// may be running.
func flipTail(t *testing.T, n *clustertest.Node, before int) {
	t.Helper()
	path, _, used := tail(t, n)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := len(used) - before
	if _, err := f.WriteAt([]byte{used[at] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// editTail changes what is used of the newest log segment of a node that is down.
func editTail(t *testing.T, n *clustertest.Node, edit func(used []byte)) {
	t.Helper()
	path, all, used := tail(t, n)
	edit(used)
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A node whose log lost its end, its whole log, or a bit is not started under
// its id, is told what to do, and comes back as a new member after a wipe.
func TestDamagedNode_IsRefused_AndComesBackAfterAWipe(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader, _, s := ready(t, c, "orders")
	for seq := uint64(1); seq <= 40; seq++ {
		publishOne(t, c, s, 1, "orders", seq)
	}
	c.WaitCaughtUp()
	victim := c.Others(leader)[0]
	for _, damage := range []struct {
		name, says string
		do         func()
	}{
		{"the tail is zeros", "was acknowledged", func() { editTail(t, victim, func(used []byte) { clear(used[len(used)-1500:]) }) }},
		{"the log is gone", "there is no", func() {
			if err := os.RemoveAll(logDir(victim)); err != nil {
				t.Fatal(err)
			}
		}},
		{"all groups are gone", "there is no", func() {
			if err := os.RemoveAll(filepath.Join(victim.Dir, "groups")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Logf("%s", damage.name)
		old := victim.Status().ServerID
		c.Kill(victim)
		damage.do()
		err := c.TryRestart(victim)
		if !errors.Is(err, raftlog.ErrLogLost) || !strings.Contains(err.Error(), damage.says) || !strings.Contains(err.Error(), "onceq node wipe") {
			t.Fatalf("%s: started with %v", damage.name, err)
		}
		report, err := cluster.VerifyDir(victim.Dir)
		if err != nil || len(report.Log.Problems) == 0 || !errors.Is(c.TryRestart(victim), raftlog.ErrLogLost) {
			t.Fatalf("%s: verify says %+v, %v", damage.name, report, err)
		}
		if err := cluster.Wipe(victim.Dir); err != nil {
			t.Fatal(err)
		}
		if err := c.TryRestart(victim); err != nil {
			t.Fatalf("after the wipe: %v", err)
		}
		now := victim.Status().ServerID
		if now == old {
			t.Fatal("a wiped node came back under its old id")
		}
		clustertest.Eventually(t, func() string {
			m := members(c)
			for _, v := range m.Members {
				if v.ServerID == now && v.Voter && len(m.Members) == 3 {
					return ""
				}
			}
			return fmt.Sprintf("members %+v, want three, %s as a voter", m.Members, now)
		})
		publishOne(t, c, s, 1, "orders", 1)
		c.WaitCaughtUp()
		c.DigestsAgree()
	}
}

func TestVerifyDir_OfANodeThatIsWell_FindsNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	n, _, s := ready(t, c, "orders")
	for seq := uint64(1); seq <= 10; seq++ {
		publishOne(t, c, s, 1, "orders", seq)
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	publishOne(t, c, s, 1, "orders", 11)
	c.Stop(n)
	for range 2 { // verifying changes nothing that a start or a second look would mind
		r, err := cluster.VerifyDir(n.Dir)
		if err != nil || len(r.Log.Problems) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		if r.Log.Snapshot == 0 || r.Log.Entries < 10 || r.Log.Last != r.Log.Acknowledged.Index || !r.Log.Acknowledged.Clean {
			t.Fatalf("%+v", r.Log)
		}
	}
	c.Restart(n)
	publishOne(t, c, s, 1, "orders", 12)
	c.Stop(n)

	// A flipped bit behind the snapshot is named by file and offset.
	editTail(t, n, func(used []byte) {
		at := bytes.LastIndex(used, []byte("body 11"))
		if at < 0 {
			t.Fatal("the body is not in the newest segment")
		}
		used[at] ^= 1
	})
	r, err := cluster.VerifyDir(n.Dir)
	if err != nil || len(r.Log.Problems) == 0 || !strings.Contains(r.Log.Problems[0].Error(), ".wal, offset ") {
		t.Fatalf("%+v, %v", r.Log.Problems, err)
	}
}
