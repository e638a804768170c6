package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/fsm"
	"onceq/transport/wire"
)

type backupCmd struct {
	Make   backupMakeCmd   `cmd:"" default:"withargs" help:"Write a backup of a running cluster."`
	Verify backupVerifyCmd `cmd:"" help:"Read a backup to its end and say what is in it, or what is wrong and where."`
}

// Help says what a backup is.
func (*backupCmd) Help() string {
	return `A backup holds everything that was confirmed when it was begun, as of one index of
the log: messages, queues with their settings, and what is known of producers'
sessions. Publishing and consuming go on meanwhile; a node that does not lead makes
it, from a snapshot. The file is written under another name first and has an end
mark, so half a backup is never taken for one. FILE may be - for standard output.

"onceq backup FILE" is short for "onceq backup make FILE".

Examples:
  onceq backup monday.onceq
  onceq backup --force /backups/onceq.latest -o json
  onceq backup - | zstd > monday.onceq.zst
  onceq backup verify monday.onceq`
}

type backupMakeCmd struct {
	outputFlag
	Force bool   `help:"Replace the file if there is one."`
	Node  string `help:"The node that makes it. Default: one that does not lead, if there is one." placeholder:"NAME"`
	File  string `arg:"" help:"File to write, or - for standard output." type:"path"`
}

// backupReport is what is said of a backup.
type backupReport struct {
	File           string `json:"file"`
	ID             string `json:"id"`
	Cluster        string `json:"cluster"`
	Incarnation    string `json:"incarnation"`
	Node           string `json:"node"`
	MadeAt         string `json:"made_at"`
	Index          uint64 `json:"index"`
	Term           uint64 `json:"term"`
	ClusterSeconds int64  `json:"cluster_seconds"`
	MachineVersion uint32 `json:"machine_version"`
	Queues         uint64 `json:"queues"`
	Messages       uint64 `json:"messages"`
	Sessions       uint64 `json:"sessions"`
	Bytes          int64  `json:"bytes"`
	SHA256         string `json:"sha256"`
}

func toBackupReport(file string, s client.BackupSummary) backupReport {
	h := s.Head
	return backupReport{
		File: file, ID: fmt.Sprintf("%x", h.ID), Cluster: h.Cluster, Incarnation: incarnationText(h.Incarnation), Node: h.Node,
		MadeAt: time.Unix(0, h.Wall).UTC().Format(time.RFC3339), Index: h.Index, Term: h.Term, ClusterSeconds: int64(h.Now / time.Second),
		MachineVersion: h.MachineVersion, Queues: h.Queues, Messages: h.Messages, Sessions: h.Sessions,
		Bytes: s.Bytes, SHA256: fmt.Sprintf("%x", s.Sum),
	}
}

func incarnationText(n uint64) string { return fmt.Sprintf("%016x", n) }

// Run makes the backup.
func (b *backupMakeCmd) Run(ctx context.Context, a *app, g *globals) error {
	out, err := b.create(a)
	if err != nil {
		return err
	}
	defer out.drop()
	c, err := a.dialWithin(ctx, g)
	if err != nil {
		return err
	}
	defer c.Close()
	w := bufio.NewWriterSize(out, 1<<20)
	s, err := c.Admin().Backup(ctx, w, client.BackupOptions{Node: b.Node, BeginTimeout: g.Timeout, Progress: a.progress("backup")})
	a.Done()
	err = beginError(ctx, err)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.keep()
	}
	if err != nil {
		return fmt.Errorf("backup to %s: %w", b.File, err)
	}
	r := toBackupReport(b.File, s)
	switch {
	case b.File == "-" && !b.table():
		return console.WriteJSON(a.Err, b.format(), r) // standard output is the backup's
	case !b.table():
		return console.WriteJSON(a.Out, b.format(), r)
	}
	a.Note("%s: %s messages in %s queues, as of index %d, made by %s: %s", b.File, console.Count(s.Head.Messages), console.Count(s.Head.Queues), s.Head.Index, s.Head.Node, console.Bytes(uint64(s.Bytes)))
	return nil
}

// dialWithin connects within the time-out, for what takes longer than that.
func (a *app) dialWithin(ctx context.Context, g *globals) (*client.Client, error) {
	dial, cancel := g.within(ctx)
	defer cancel()
	return a.dial(dial, g)
}

// beginError names the flag when a backup or restore was not begun in time. The
// client knows of no flags, and the rest of the work has no time-out.
func beginError(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (--timeout)", err)
	}
	return err
}

// progress shows how far a backup or restore has come: on a terminal all the time,
// elsewhere each tenth.
func (a *app) progress(what string) func(client.Progress) {
	told := uint64(0)
	return func(p client.Progress) {
		line := fmt.Sprintf("%s: %s of %s messages, %s", what, console.Count(p.Bodies), console.Count(p.Head.Messages), console.Bytes(uint64(p.Bytes)))
		if a.Watched() {
			a.Progress("%s", line)
			return
		}
		if tenth := 10 * p.Bodies / max(1, p.Head.Messages); tenth > told && tenth < 10 {
			told = tenth
			a.Note("%s", line)
		}
	}
}

// partial is a file that gets its name when it is whole.
type partial struct {
	*os.File
	name  string
	force bool
	kept  bool
}

func (b *backupMakeCmd) create(a *app) (*outFile, error) {
	if b.File == "-" {
		return &outFile{w: a.Out}, nil
	}
	info, err := os.Stat(b.File)
	switch {
	case err == nil && info.IsDir():
		return nil, exit.Errorf(exit.Usage, "%s is a directory: name a file in it", b.File)
	case err == nil && !b.Force:
		return nil, exists(b.File)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(b.File), "."+filepath.Base(b.File)+".*.partial")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exit.Errorf(exit.NotFound, "there is no directory %s", filepath.Dir(b.File))
	}
	if err != nil {
		return nil, err
	}
	return &outFile{w: f, part: &partial{File: f, name: b.File, force: b.Force}}, nil
}

func exists(file string) error {
	return &exit.Error{Code: exit.Conflict, Err: fmt.Errorf("there is a file %s", file), Hint: "name another one, or replace it with --force"}
}

// outFile is where a backup is written.
type outFile struct {
	w    io.Writer
	part *partial // nil for standard output
}

func (o *outFile) Write(p []byte) (int, error) { return o.w.Write(p) }

// keep makes the file durable and gives it its name.
func (o *outFile) keep() error {
	p := o.part
	if p == nil {
		return nil
	}
	if err := errors.Join(p.Sync(), p.Close()); err != nil {
		return err
	}
	name := p.File.Name()
	err := error(nil)
	if !p.force {
		// Unlike a rename, a link takes nobody's place.
		err = os.Link(name, p.name)
		switch {
		case errors.Is(err, fs.ErrExist):
			return exists(p.name)
		case err == nil:
			err = os.Remove(name)
			p.kept = true
		case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP):
			err = nil // the file system has no links
		}
	}
	if err == nil && !p.kept {
		err = os.Rename(name, p.name)
		p.kept = err == nil
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(p.name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// drop removes what was not kept.
func (o *outFile) drop() {
	if o.part != nil && !o.part.kept {
		_ = o.part.Close()
		_ = os.Remove(o.part.File.Name())
	}
}

type backupVerifyCmd struct {
	outputFlag
	File string `arg:"" help:"File to read, or - for standard input." type:"path"`
}

// Run reads the backup. What is wrong with it is exit code 8.
func (v *backupVerifyCmd) Run(a *app) error {
	f, err := openBackup(a, v.File)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := verifyBackup(f)
	if err != nil {
		return badBackup(v.File, err)
	}
	r := toBackupReport(v.File, s)
	if !v.table() {
		return console.WriteJSON(a.Out, v.format(), r)
	}
	grid := console.NewGrid("WHAT", "VALUE")
	grid.Row("made", fmt.Sprintf("%s by %s", r.MadeAt, r.Node))
	grid.Row("cluster", r.Cluster)
	grid.Row("incarnation", r.Incarnation)
	grid.Row("as of", fmt.Sprintf("index %d of term %d, machine version %d", r.Index, r.Term, r.MachineVersion))
	grid.Row("queues", console.Count(r.Queues))
	grid.Row("messages", console.Count(r.Messages))
	grid.Row("sessions", console.Count(r.Sessions))
	grid.Row("bytes", fmt.Sprintf("%d in %d parts", s.Bytes, s.Parts))
	grid.Row("sha-256", r.SHA256)
	if _, err := grid.WriteTo(a.Out); err != nil {
		return err
	}
	a.Note("%s: whole, and can be restored", v.File)
	return nil
}

// openBackup opens a file, or standard input.
func openBackup(a *app, file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(a.In), nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exit.Errorf(exit.NotFound, "there is no file %s", file)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.Join(exit.Errorf(exit.Usage, "%s is a directory", file), f.Close())
	}
	return f, nil
}

// badBackup names the file in what is wrong with it.
func badBackup(file string, err error) error {
	e := (*client.Error)(nil)
	if errors.As(err, &e) && e.Code == wire.CodeBadBackup {
		return &exit.Error{Code: exit.CheckFailed, Err: fmt.Errorf("%s: %w", file, err), Hint: "use another copy; see  onceq errors 4009"}
	}
	return fmt.Errorf("%s: %w", file, err)
}

// verifyBackup reads a backup as a restore would.
func verifyBackup(r io.Reader) (client.BackupSummary, error) {
	var tables *fsm.BackupReader
	s, err := client.ReadBackup(r, func(h client.BackupHead) error {
		tables = fsm.NewBackupReader(backupGroup, fsm.BackupHead{
			Incarnation: h.Incarnation, QueueMax: h.QueueMax, Queues: h.Queues, Messages: h.Messages, Sessions: h.Sessions, Now: fsm.Time(h.Now),
		})
		return nil
	}, func(number uint64, p client.BackupPart) error {
		read := tables.Tables
		if p.Kind == wire.BackupBodies {
			read = tables.Bodies
		}
		if err := read(p.Data); err != nil {
			return wrongInside("part %d: %v", number, err)
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	if err := tables.End(); err != nil {
		return s, wrongInside("it is read to its end, and cannot be restored: %v", err)
	}
	return s, nil
}

// backupGroup is the group that a cluster has.
const backupGroup = 1

func wrongInside(format string, args ...any) error {
	return &client.Error{Code: wire.CodeBadBackup, Text: fmt.Sprintf(format, args...)}
}

type restoreCmd struct {
	outputFlag
	destructive
	Force   bool   `help:"Also into a cluster that has queues: everything in it is replaced. Asks first."`
	Replace bool   `help:"Take the place of another restore that is under way or was left unfinished."`
	File    string `arg:"" help:"Backup to read, or - for standard input." type:"path"`
}

// Help says what a restore does.
func (*restoreCmd) Help() string {
	return `Puts a backup into a new, empty cluster. Nothing of it is seen before its last step,
which happens on all nodes or on none; a leader that dies in between does not stop it.

With it another incarnation of the cluster begins. Messages, queues and delays are as
they were, leases have gone back. Producers' sessions are closed: a copy of a publish
that the backup knows is answered from it, any other from before is refused, since
whether it was stored and done after the backup nobody can tell. Message ids and
leases from before mean nothing. What is delivered from the backup is marked.

--force restores over what is in the cluster: all of that is lost, so back it up
first. The same backup once more changes nothing; with --force it is restored again.

Examples:
  onceq restore monday.onceq
  onceq restore --dry-run monday.onceq
  zstd -dc monday.onceq.zst | onceq restore -
  onceq restore --force --yes monday.onceq`
}

// restoreReport is what is said of a restore.
type restoreReport struct {
	backupReport
	NewIncarnation string `json:"new_incarnation"`
	Already        bool   `json:"already"`
}

// Run restores. A file is read through before anything is sent.
func (r *restoreCmd) Run(ctx context.Context, a *app, g *globals) error {
	f, err := openBackup(a, r.File)
	if err != nil {
		return err
	}
	defer f.Close()
	var s client.BackupSummary
	if file, ok := f.(*os.File); ok {
		if s, err = verifyBackup(file); err != nil {
			return badBackup(r.File, err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	c, err := a.dialWithin(ctx, g)
	if err != nil {
		return err
	}
	defer c.Close()
	if on, err := r.agreed(ctx, a, g, c, s); !on {
		return err
	}
	done, err := c.Admin().Restore(ctx, f, client.RestoreOptions{Force: r.Force, Replace: r.Replace, BeginTimeout: g.Timeout, Progress: a.progress("restore")})
	a.Done()
	err = beginError(ctx, err)
	switch {
	case errors.Is(err, client.ErrNotEmpty):
		return &exit.Error{Code: exit.Conflict, Err: err, Hint: "restore into a new cluster; or back this one up and use --force"}
	case errors.Is(err, client.ErrRestoreStale) && !r.Replace:
		return &exit.Error{Code: exit.Conflict, Err: err, Hint: "if nobody else is restoring:  onceq restore --replace " + r.File}
	case err != nil:
		return badBackup(r.File, err)
	}
	report := restoreReport{toBackupReport(r.File, done.Backup), incarnationText(done.Incarnation), done.Already}
	if done.Already && s.Bytes > 0 {
		report.backupReport = toBackupReport(r.File, s)
	}
	if !r.table() {
		return console.WriteJSON(a.Out, r.format(), report)
	}
	if done.Already {
		a.Note("the cluster was restored from this backup before, as incarnation %s: nothing was done. --force does it again.", report.NewIncarnation)
		return nil
	}
	a.Note("restored %s messages in %s queues; the cluster is in incarnation %s", console.Count(report.Messages), console.Count(report.Queues), report.NewIncarnation)
	return nil
}

// agreed asks before anything is replaced.
func (r *restoreCmd) agreed(ctx context.Context, a *app, g *globals, c *client.Client, s client.BackupSummary) (bool, error) {
	if !r.Force && !r.DryRun {
		return true, nil
	}
	ask, cancel := g.within(ctx)
	defer cancel()
	queues, err := c.Admin().Queues(ask)
	if err != nil {
		return false, err
	}
	here := uint64(0)
	for _, q := range queues {
		here += q.Counts.Ready + q.Counts.Leased + q.Counts.Delayed + q.Counts.Parked
	}
	with := "the backup"
	if s.Bytes > 0 {
		with = fmt.Sprintf("%s messages in %s queues from %s", console.Count(s.Head.Messages), console.Count(s.Head.Queues), r.File)
	}
	switch {
	case len(queues) == 0 && !r.DryRun:
		return true, nil
	case len(queues) > 0 && !r.Force:
		return false, &exit.Error{Code: exit.Conflict, Err: fmt.Errorf("cluster %s has %d queues: a restore would be refused", c.Cluster(), len(queues)),
			Hint: "restore into a new cluster; or back this one up and use --force"}
	}
	return r.confirm(a, fmt.Sprintf("replace %s messages in %d queues of cluster %s by %s", console.Count(here), len(queues), c.Cluster(), with))
}
