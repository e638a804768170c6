package faultfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"onceq/jepsen/faultfs"
)

const bound = 60 * time.Second

// disk is a mounted disk and what tests do on it. Its paths are below the mount.
type disk struct {
	*faultfs.FS
	t       *testing.T
	backing string
}

// mount needs root: a test of this package that cannot have it fails, since it
// would show nothing otherwise.
func mount(t *testing.T) *disk {
	t.Helper()
	dir := t.TempDir()
	backing, at := filepath.Join(dir, "backing"), filepath.Join(dir, "mnt")
	for _, d := range []string{backing, at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := faultfs.Mount(backing, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &disk{FS: s, t: t, backing: backing}
}

func (d *disk) path(name string) string { return filepath.Join(d.Dir(), name) }

func (d *disk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// write makes or changes a file, at an offset.
func (d *disk) write(name string, off int64, content string, sync bool) {
	d.t.Helper()
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o644)
	d.must(err)
	_, err = f.WriteAt([]byte(content), off)
	d.must(err)
	if sync {
		d.must(f.Sync())
	}
	d.must(f.Close())
}

func (d *disk) sync(dir string) {
	d.t.Helper()
	f, err := os.Open(d.path(dir))
	d.must(err)
	d.must(f.Sync())
	d.must(f.Close())
}

func (d *disk) cut() {
	d.t.Helper()
	d.must(d.Cut(faultfs.Loss{}))
	d.must(d.PowerOn())
}

func (d *disk) want(name, content string) {
	d.t.Helper()
	if b, err := os.ReadFile(d.path(name)); err != nil || string(b) != content {
		d.t.Errorf("%s: %.80q, %v; want %.80q", name, b, err, content)
	}
}

func (d *disk) gone(name string) {
	d.t.Helper()
	if b, err := os.ReadFile(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		d.t.Errorf("%s is there: %.80q, %v", name, b, err)
	}
}

func TestCut_FileThatWasFsynced_Stays(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.write("a", 0, "durable", true)
	d.sync(".")
	d.cut()
	d.want("a", "durable")
}

func TestCut_FileWithoutFsync_IsEmpty(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.write("a", 0, "not durable", false)
	d.sync(".")
	d.want("a", "not durable")
	d.cut()
	d.want("a", "")
}

func TestCut_NameWithoutFsyncOfItsDirectory_IsGone(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.Mkdir(d.path("dir"), 0o755))
	d.sync(".")
	d.write("dir/a", 0, "durable without a name", true)
	d.must(os.Symlink("a", d.path("dir/s")))
	d.must(os.MkdirAll(d.path("dir/deep/deeper"), 0o755))
	d.write("dir/deep/b", 0, "durable", true)
	d.sync("dir/deep")
	d.cut()
	d.gone("dir/a")
	d.gone("dir/deep/b")
	if entries, err := os.ReadDir(d.path("dir")); err != nil || len(entries) != 0 {
		t.Errorf("dir has %v, %v", entries, err)
	}
}

func TestCut_ChangesSinceTheLastFsync_AreTakenBack(t *testing.T) {
	t.Parallel()
	d := mount(t)
	old := strings.Repeat("0123456789abcdef", 2000)
	d.write("a", 0, old, true)
	d.sync(".")
	for name, change := range map[string]func() error{
		"overwritten": func() error { d.write("a", 5000, strings.Repeat("x", 9000), false); return nil },
		"appended":    func() error { d.write("a", int64(len(old)), "more", false); return nil },
		"cut short":   func() error { return os.Truncate(d.path("a"), 4100) },
		"emptied":     func() error { return os.WriteFile(d.path("a"), []byte("new"), 0o644) },
		"cut and grown": func() error {
			return errors.Join(os.Truncate(d.path("a"), 10), os.Truncate(d.path("a"), 100_000))
		},
		"preallocated": func() error {
			f, err := os.OpenFile(d.path("a"), os.O_RDWR, 0)
			if err == nil {
				err = errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, 1<<20), f.Close())
			}
			return err
		},
	} {
		d.must(change())
		d.cut()
		if b, err := os.ReadFile(d.path("a")); err != nil || string(b) != old {
			t.Fatalf("%s: %d bytes, %v; want the %d of before", name, len(b), err, len(old))
		}
	}
}

func TestCut_RenameWithoutFsyncOfTheDirectory_IsTakenBack(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.write("new", 0, "new", true)
	d.write("current", 0, "old", true)
	d.sync(".")
	d.must(os.Rename(d.path("new"), d.path("current")))
	d.want("current", "new")
	d.gone("new")
	d.cut()
	d.want("current", "old")
	d.want("new", "new")

	d.must(os.Rename(d.path("new"), d.path("current")))
	d.sync(".")
	d.cut()
	d.want("current", "new")
	d.gone("new")
}

func TestCut_RenameOfADirectory_IsTakenBackWithWhatIsInIt(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.Mkdir(d.path("snap.tmp"), 0o755))
	d.write("snap.tmp/state", 0, "whole", true)
	d.sync("snap.tmp")
	d.sync(".")
	d.must(os.Rename(d.path("snap.tmp"), d.path("snap")))
	d.write("snap/late", 0, "late", true)
	d.want("snap/state", "whole")
	d.cut()
	d.want("snap.tmp/state", "whole")
	d.gone("snap/state")
	d.gone("snap.tmp/late")
}

func TestCut_RemovalWithoutFsyncOfTheDirectory_IsTakenBack(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.Mkdir(d.path("dir"), 0o755))
	d.write("dir/a", 0, "a", true)
	d.write("dir/b", 0, "b", true)
	d.must(os.Link(d.path("dir/a"), d.path("dir/link")))
	d.sync("dir")
	d.sync(".")
	d.must(os.Remove(d.path("dir/a")))
	d.write("dir/a", 0, "another file", true) // under the same name
	d.must(os.RemoveAll(d.path("dir")))
	d.gone("dir/a")
	d.cut()
	d.want("dir/a", "a")
	d.want("dir/b", "b")
	d.want("dir/link", "a")

	d.must(os.Remove(d.path("dir/a")))
	d.sync("dir")
	d.cut()
	d.gone("dir/a")
	d.want("dir/link", "a")
}

// What was in a directory that is gone for good does not come back, and what came
// in its place stays.
func TestCut_DirectoryMadeAnew_IsTheNewOne(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.Mkdir(d.path("dir"), 0o755))
	d.write("dir/a", 0, "old", true)
	d.sync("dir")
	d.sync(".")
	d.must(os.RemoveAll(d.path("dir")))
	d.must(os.Mkdir(d.path("dir"), 0o755))
	d.write("dir/b", 0, "new", true)
	d.sync("dir")
	d.sync(".")
	d.cut()
	d.gone("dir/a")
	d.want("dir/b", "new")
}

func TestCut_WhatWasOpen_FailsForEver(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.write("a", 0, "a", true)
	d.sync(".")
	f, err := os.OpenFile(d.path("a"), os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	d.must(d.Cut(faultfs.Loss{}))
	for range 2 {
		if _, err := f.WriteAt([]byte("b"), 0); !errors.Is(err, syscall.EIO) {
			t.Errorf("written after the cut: %v", err)
		}
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Errorf("fsynced after the cut: %v", err)
		}
		if _, err := d.Do("on"); err != nil && !errors.Is(err, faultfs.ErrPower) {
			t.Fatal(err)
		}
	}
	d.want("a", "a")
}

// Torn: pages and sectors of both, what was durable untouched, one seed one result.
func TestCut_Tear_KeepsSomeOfWhatWasWritten(t *testing.T) {
	t.Parallel()
	const pages = 64
	tear := func(seed uint64) []byte {
		d := mount(t)
		d.write("a", 0, strings.Repeat("o", pages*4096), true)
		d.sync(".")
		d.write("a", 4096, strings.Repeat("n", (pages-2)*4096), false)
		d.must(d.Cut(faultfs.Loss{Tear: true, Seed: seed}))
		d.must(d.PowerOn())
		b, err := os.ReadFile(d.path("a"))
		d.must(err)
		return b
	}
	b := tear(1)
	if len(b) != pages*4096 || bytes.Contains(b[:4096], []byte("n")) || bytes.Contains(b[len(b)-4096:], []byte("n")) {
		t.Fatalf("%d bytes, or a page that nobody wrote has changed", len(b))
	}
	var whole, none, mixed int
	for p := 1; p < pages-1; p++ {
		n := 0
		for s := range 8 {
			sector := b[p*4096+s*512:][:512]
			k := bytes.Count(sector, []byte("n"))
			if k != 0 && k != 512 {
				t.Fatalf("page %d, sector %d is mixed", p, s)
			}
			n += k / 512
		}
		switch n {
		case 0:
			none++
		case 8:
			whole++
		default:
			mixed++
		}
	}
	if whole == 0 || none == 0 || mixed == 0 {
		t.Errorf("%d pages survived, %d are lost, %d are torn: want some of each", whole, none, mixed)
	}
	if !bytes.Equal(b, tear(1)) {
		t.Error("the same seed tears otherwise")
	}
	if bytes.Equal(b, tear(2)) {
		t.Error("another seed tears alike")
	}
}

// Torn: names survive up to some moment.
func TestCut_Tear_KeepsNamesInTheirOrder(t *testing.T) {
	t.Parallel()
	const files = 20
	seen := map[int]bool{}
	for seed := range uint64(8) {
		d := mount(t)
		for i := range files {
			d.write(fmt.Sprint(i), 0, "x", true)
		}
		d.must(d.Cut(faultfs.Loss{Tear: true, Seed: seed}))
		d.must(d.PowerOn())
		there := 0
		for i := range files {
			if _, err := os.Stat(d.path(fmt.Sprint(i))); err == nil {
				if there != i {
					t.Fatalf("seed %d: file %d is there and %d is not", seed, i, there)
				}
				there++
			}
		}
		seen[there] = true
	}
	if len(seen) < 3 {
		t.Errorf("names survived in %v ways only", seen)
	}
}

func TestCutBefore_ComesBetweenTwoSteps(t *testing.T) {
	t.Parallel()
	d := mount(t)
	step := func() error {
		f, err := os.Create(d.path("new"))
		if err != nil {
			return err
		}
		_, err = f.WriteString("new")
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}
	for n, want := range []string{1: "create new", 2: "write new", 3: "fsync new"} {
		for _, keep := range []bool{false, true} {
			if n == 0 {
				continue
			}
			d.CutBefore(n, faultfs.Loss{Keep: keep})
			if err := step(); !errors.Is(err, syscall.EIO) || d.CutAt() != want {
				t.Errorf("change %d: %v, cut at %q, want %q", n, err, d.CutAt(), want)
			}
			d.must(d.PowerOn())
			switch _, err := os.Stat(d.path("new")); {
			case keep && n > 1:
				d.must(err)
				d.must(os.Remove(d.path("new")))
				d.sync(".")
			case !errors.Is(err, fs.ErrNotExist):
				t.Errorf("change %d, keep %v: the file is there: %v", n, keep, err)
			}
		}
	}
	d.CutBefore(4, faultfs.Loss{})
	d.must(step())
	if d.CutAt() != "" {
		t.Errorf("cut at %q, before nothing", d.CutAt())
	}
	d.CutBefore(0, faultfs.Loss{})
	d.must(os.Mkdir(d.path("dir"), 0o755))
}

func TestRule_FailsTheNth_OfOneKind_OnSomeNames(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.Mkdir(d.path("wal"), 0o755))
	if _, err := d.Do("fail write ENOSPC match *.wal skip 2 times 1"); err != nil {
		t.Fatal(err)
	}
	write := func(name string) error {
		f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE, 0o644)
		d.must(err)
		_, err = f.WriteAt([]byte("x"), 0)
		return errors.Join(err, f.Close())
	}
	for i, want := range []error{nil, nil, syscall.ENOSPC, nil} {
		d.must(write("other"))
		if err := write("wal/1.wal"); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if _, hits := d.Stats(); hits[faultfs.OpWrite] != 1 || d.Hit() != "write wal/1.wal" {
		t.Errorf("hits %v, %q, want one write", hits, d.Hit())
	}
	for _, c := range []struct {
		rule string
		do   func() error
	}{
		{"fail read EIO", func() error { _, err := os.ReadFile(d.path("wal/1.wal")); return err }},
		{"fail open EIO", func() error { _, err := os.ReadFile(d.path("other")); return err }},
		{"fail create EIO", func() error { return os.Mkdir(d.path("d"), 0o755) }},
		{"fail rename EIO", func() error { return os.Rename(d.path("other"), d.path("another")) }},
		{"fail remove EIO", func() error { return os.Remove(d.path("other")) }},
		{"fail truncate EIO", func() error { return os.Truncate(d.path("other"), 0) }},
		{"fail fsync EIO", func() error {
			f, err := os.Open(d.Dir())
			d.must(err)
			defer f.Close()
			return f.Sync()
		}},
		{"fail all EIO", func() error { return os.Mkdir(d.path("d"), 0o755) }},
	} {
		// A file that the kernel has not read yet.
		d.must(write("wal/1.wal"))
		d.must(d.Cut(faultfs.Loss{}))
		d.must(d.PowerOn())
		d.must(os.MkdirAll(d.path("wal"), 0o755))
		d.write("wal/1.wal", 0, "xx", true)
		d.write("other", 0, "xx", true)
		d.sync(".")
		d.sync("wal")
		d.cut()
		if _, err := d.Do(c.rule); err != nil {
			t.Fatal(err)
		}
		if err := c.do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", c.rule, err)
		}
		d.Heal()
		d.want("other", "xx")
	}
}

// After a failed fsync the pages are taken for clean, and are not.
func TestRule_FailedFsync_LosesWhatItWasFor(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.write("a", 0, "old", true)
	d.sync(".")
	d.must(d.Add(faultfs.Rule{Ops: []faultfs.Op{faultfs.OpFsync}, Errno: syscall.EIO, Times: 1}))
	f, err := os.OpenFile(d.path("a"), os.O_RDWR, 0)
	d.must(err)
	_, err = f.WriteAt([]byte("new"), 0)
	d.must(err)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("fsync: %v", err)
	}
	d.must(f.Sync()) // as if all were well
	_, err = f.WriteAt([]byte("durable"), 4096)
	d.must(err)
	d.must(f.Sync())
	d.must(f.Close())
	b, err := os.ReadFile(d.path("a"))
	d.must(err)
	if string(b[:3]) != "new" {
		t.Fatalf("before the cut %q", b[:3])
	}
	d.cut()
	b, err = os.ReadFile(d.path("a"))
	d.must(err)
	if string(b[:3]) != "old" || string(b[4096:]) != "durable" {
		t.Fatalf("after the cut %q and %q", b[:3], b[4096:])
	}
}

// TestRule_Read_FailsAlsoWhatTheKernelHas: what was just read is in its memory.
func TestRule_Read_FailsAlsoWhatTheKernelHas(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(os.MkdirAll(d.path("a/b"), 0o755))
	d.must(os.WriteFile(d.path("a/b/file"), []byte("what is known"), 0o600))
	d.must(os.WriteFile(d.path("other"), []byte("and what is not asked about"), 0o600))
	open, err := os.Open(d.path("a/b/file"))
	d.must(err)
	defer open.Close()
	_, err = open.ReadAt(make([]byte, 4), 0) // what was written alone it would ask for
	d.must(err)
	d.must(d.Add(faultfs.Rule{Ops: []faultfs.Op{faultfs.OpRead}, Match: "file", Errno: syscall.EIO}))
	if _, err := os.ReadFile(d.path("a/b/file")); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file that is opened: %v", err)
	}
	if _, err := open.ReadAt(make([]byte, 4), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file that was open: %v", err)
	}
	if b, err := os.ReadFile(d.path("other")); err != nil || !strings.HasPrefix(string(b), "and") {
		t.Errorf("another file: %q, %v", b, err)
	}
	d.Heal()
	if b, err := os.ReadFile(d.path("a/b/file")); err != nil || string(b) != "what is known" {
		t.Errorf("after it was healed: %q, %v", b, err)
	}
}

func TestRule_Slow_AndHang(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(d.Add(faultfs.Rule{Ops: []faultfs.Op{faultfs.OpCreate}, Slow: 100 * time.Millisecond}))
	begun := time.Now()
	d.must(os.Mkdir(d.path("slow"), 0o755))
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("a slow operation took %v", took)
	}
	d.Heal()
	d.must(d.Add(faultfs.Rule{Ops: []faultfs.Op{faultfs.OpCreate}, Hang: true}))
	done := make(chan error, 1)
	go func() { done <- os.Mkdir(d.path("hung"), 0o755) }()
	wait(t, "the operation to hang", func() bool { _, hits := d.Stats(); return hits[faultfs.OpCreate] == 2 })
	select {
	case err := <-done:
		t.Fatalf("it did not hang: %v", err)
	default:
	}
	d.Heal()
	select {
	case err := <-done:
		d.must(err)
	case <-time.After(bound):
		t.Fatal("it hangs on after it was healed")
	}
}

// A process that hangs in an operation can be killed.
func TestRule_Hang_EndsWithTheProcess(t *testing.T) {
	t.Parallel()
	d := mount(t)
	d.must(d.Add(faultfs.Rule{Ops: []faultfs.Op{faultfs.OpCreate}, Hang: true}))
	cmd := exec.Command("mkdir", d.path("hung"))
	d.must(cmd.Start())
	wait(t, "the process to hang", func() bool { _, hits := d.Stats(); return hits[faultfs.OpCreate] == 1 })
	d.must(cmd.Process.Kill())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(bound):
		t.Fatal("it is not gone")
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestDo_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	d := mount(t)
	for _, line := range []string{"", "cut now", "cut tear x", "plan", "plan x", "plan -1", "plan 1 x", "fail", "fail write", "fail write EBLUE", "fail blue EIO", "slow write fast",
		"hang", "fail write EIO match", "fail write EIO times x", "fail write EIO times -1", "fail write EIO often 3", "fail write EIO match [", "slow all 0s"} {
		if text, err := d.Do(line); !errors.Is(err, faultfs.ErrCommand) && !errors.Is(err, faultfs.ErrRule) {
			t.Errorf("%q: %q, %v", line, text, err)
		}
	}
	if _, err := d.Do("on"); !errors.Is(err, faultfs.ErrPower) {
		t.Errorf("on twice: %v", err)
	}
}

// The binary, as others use it: bbolt and its mmap are in another process than the
// disk.
func TestBinary_TakesCommands_AndEndsWithItsParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Fatal("this takes Linux")
	}
	dir := t.TempDir()
	bin, socket, at := filepath.Join(dir, "faultfs"), filepath.Join(dir, "s"), filepath.Join(dir, "mnt")
	ctx, cancel := context.WithTimeout(t.Context(), 2*bound)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/faultfs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range []string{at, filepath.Join(dir, "b")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "--backing", filepath.Join(dir, "b"), "--socket", socket, "--end-with-stdin", at)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var conn net.Conn
	wait(t, "its socket", func() bool { conn, err = net.Dial("unix", socket); return err == nil })
	defer conn.Close()
	do := func(line string) string {
		t.Helper()
		fmt.Fprintln(conn, line)
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b[:n]))
	}
	if err := os.WriteFile(filepath.Join(at, "a"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := do("where"); got != "ok 1 files, 1 names: a" {
		t.Errorf("where: %q", got)
	}
	if got := do("cut tear"); !strings.HasPrefix(got, "error bad command") {
		t.Errorf("a bad command: %q", got)
	}
	for _, line := range []string{"cut", "on"} {
		if got := do(line); got != "ok" {
			t.Errorf("%s: %q", line, got)
		}
	}
	if _, err := os.Stat(filepath.Join(at, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there after the cut: %v", err)
	}
	if got := do("stats"); !strings.Contains(got, "create=0/1") {
		t.Errorf("stats: %q", got)
	}
	stdin.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(bound):
		cmd.Process.Kill()
		t.Fatal("it does not end")
	}
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(b, []byte(at)) {
		t.Errorf("%s is still mounted (%v)", at, err)
	}
}
