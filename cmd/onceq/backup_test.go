package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceq/cluster/clustertest"
	"onceq/cmd/onceq/internal/exit"
)

// A cluster of three processes is backed up, thrown away, and another one is
// restored from the file: as the README has it.
func TestBackup_AndRestoreIntoANewCluster(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "monday.onceq")
	old := ownDev(t, filepath.Join(dir, "old"))
	onceq(t, "", "queue", "create", "orders", "--delivery-limit", "5").want(t, exit.OK)
	onceq(t, "a\nb\nc\n", "pub", "orders", "-l").want(t, exit.OK)
	onceq(t, "", "pub", "orders", "later", "--delay", "1h").want(t, exit.OK)
	onceq(t, "", "backup", file).want(t, exit.OK, "4 messages in 2 queues", "as of index")
	onceq(t, "", "backup", file).want(t, exit.Conflict, "there is a file", "--force")
	onceq(t, "", "backup", "--force", file, "-o", "json").want(t, exit.OK, `"messages": 4`, `"sha256"`)
	onceq(t, "", "backup", dir).want(t, exit.Usage, "is a directory")
	onceq(t, "", "backup", filepath.Join(dir, "no", "such"), "--node", "n1").want(t, exit.NotFound, "there is no directory "+filepath.Join(dir, "no"))
	onceq(t, "", "backup", filepath.Join(dir, "b"), "--node", "n9").want(t, exit.NotFound, "n9")
	o := onceq(t, "", "backup", "verify", file, "-o", "json").want(t, exit.OK)
	var report backupReport
	if err := json.Unmarshal([]byte(o.out), &report); err != nil || report.Messages != 4 || report.Queues != 2 || report.Node == "" {
		t.Fatalf("%+v, %v: %s", report, err, o)
	}
	// Standard output holds the backup and nothing else.
	piped := onceq(t, "", "backup", "-").want(t, exit.OK)
	onceq(t, piped.out, "backup", "verify", "-").want(t, exit.OK, "whole", report.Cluster)
	if left, err := filepath.Glob(filepath.Join(dir, "*.partial")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*.partial")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	old.cmd.Process.Kill()
	<-old.done

	ownDev(t, filepath.Join(dir, "new"))
	onceq(t, "", "restore", file).want(t, exit.Conflict, "has 1 queues with 0 messages", "new cluster")
	onceq(t, "", "restore", "--dry-run", file).want(t, exit.Conflict, "has 1 queues: a restore would be refused")
	onceq(t, "", "queue", "delete", "hello", "--yes").want(t, exit.OK) // that a local cluster begins with
	onceq(t, "", "restore", "--dry-run", file).want(t, exit.OK, "would replace 0 messages in 0 queues", "Nothing was changed")
	o = onceq(t, "", "restore", file, "-o", "json").want(t, exit.OK)
	var restored restoreReport
	if err := json.Unmarshal([]byte(o.out), &restored); err != nil || restored.Messages != 4 || restored.Already || restored.NewIncarnation == restored.Incarnation {
		t.Fatalf("%+v, %v: %s", restored, err, o)
	}
	onceq(t, "", "restore", file).want(t, exit.OK, "restored from this backup before", restored.NewIncarnation)
	if q := queueShow(t, "orders"); q.Ready != 3 || q.Delayed != 1 || q.DeliveryLimit != 5 {
		t.Errorf("%+v", q)
	}
	onceq(t, piped.out, "restore", "-").want(t, exit.Conflict, "has 2 queues with 4 messages", "new cluster")
	onceq(t, "", "restore", "--force", file).want(t, exit.Usage, "nobody can be asked")
	if o := onceq(t, "", "sub", "orders", "-n", "3").want(t, exit.OK); o.out != "a\nb\nc\n" {
		t.Errorf("%s", o)
	}
	onceq(t, "", "restore", "--force", "--yes", file).want(t, exit.OK, "restored 4 messages in 2 queues")
	if q := queueShow(t, "orders"); q.Ready != 3 || q.Delayed != 1 {
		t.Errorf("back again: %+v", q)
	}
	eventually(t, "the replicas agree", func() bool { return strings.Contains(onceq(t, "", "status").out, "3/3 up") })
}

// Files that are no backups, or were damaged: each is refused with what is wrong
// and where, before anything is sent to a cluster.
func TestBackup_BadFiles_AreNamed(t *testing.T) {
	c := clustertest.New(t, 1)
	url := strings.TrimPrefix(c.URL(), "onceq://")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	inProcess(t, "", "queue", "create", "orders", "--url", url).want(t, exit.OK)
	inProcess(t, "a\nb\n", "pub", "orders", "-l", "--url", url).want(t, exit.OK)
	inProcess(t, "", "backup", good, "--url", url).want(t, exit.OK)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := append([]byte(nil), whole...)
		b[at] = to
		return b
	}
	for name, bad := range map[string]struct {
		content []byte
		says    string
	}{
		"empty":               {nil, "at byte 0: the file is empty"},
		"a text":              {[]byte("Dear Sir or Madam,\nplease find attached"), "is no backup of onceq"},
		"a short text":        {[]byte("hi"), "is no backup of onceq"},
		"another version":     {changed(9, 2), "at byte 8: version 2 of the format, this build reads version 1"},
		"a bit of the header": {changed(40, whole[40]^8), "the header does not match its checksum"},
		"a bit of a body":     {changed(len(whole)-150, whole[len(whole)-150]^1), "does not match its checksum: it was changed"},
		"a bit of the end":    {changed(len(whole)-10, whole[len(whole)-10]^1), "does not match its checksum: it was changed"},
		"cut in the header":   {whole[:30], "in the middle of the header: it was cut short"},
		"cut in a part":       {whole[:len(whole)-120], "it was cut short"},
		"no end mark":         {whole[:len(whole)-(17+3+2+32+4)+1], "cut short"},
		"one byte missing":    {whole[:len(whole)-1], "cut short"},
		"something behind":    {append(append([]byte(nil), whole...), '!'), "something follows the end mark"},
		"twice":               {append(append([]byte(nil), whole...), whole...), "something follows the end mark"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(file, bad.content, 0o600); err != nil {
				t.Fatal(err)
			}
			inProcess(t, "", "backup", "verify", file).want(t, exit.CheckFailed, bad.says, "at byte ", file, "ONCEQ-4009")
			inProcess(t, "", "restore", "--force", "--yes", file, "--url", url).want(t, exit.CheckFailed, bad.says)
			// From a pipe it is only known while it is sent.
			inProcess(t, string(bad.content), "restore", "--force", "--yes", "-", "--url", url).want(t, exit.CheckFailed, bad.says)
		})
	}
	inProcess(t, "", "backup", "verify", filepath.Join(dir, "nothing")).want(t, exit.NotFound, "there is no file")
	inProcess(t, "", "backup", "verify", dir).want(t, exit.Usage, "is a directory")
	if o := inProcess(t, "", "sub", "orders", "--until-empty", "--url", url).want(t, exit.OK); o.out != "a\nb\n" {
		t.Errorf("the cluster has changed: %s", o)
	}
	inProcess(t, "", "restore", "--force", "--yes", good, "--url", url).want(t, exit.OK, "restored 2 messages")
	for _, code := range []int{2018, 4007, 4008, 4009, 4010} {
		inProcess(t, "", "errors", fmt.Sprint(code)).want(t, exit.OK, fmt.Sprintf("ONCEQ-%d", code))
	}
}

// With one node of three nothing can be confirmed: that is said within --timeout, also of a
// leader that has not stepped down yet, and leaves nothing behind.
func TestBackupAndRestore_NoMajority_SayWithinTheTimeout(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	url := strings.TrimPrefix(c.URL(), "onceq://")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	inProcess(t, "", "backup", good, "--url", url).want(t, exit.OK)
	for _, n := range c.Others(c.WaitLeader()) {
		c.Kill(n)
	}
	for _, args := range [][]string{{"backup", filepath.Join(dir, "late")}, {"restore", good}} {
		inProcess(t, "", append(args, "--url", url, "--timeout", "2s")...).want(t, exit.Unavailable, "no answer within 2s", "(--timeout)")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
