package fsmtest

import (
	"bytes"
	"fmt"

	"onceq/fsm"
	"onceq/transport/wire"
)

// Backup is a backup of a machine, in memory.
type Backup struct {
	ID    wire.BackupID
	Head  fsm.BackupHead
	Parts []wire.BackupPart
}

// TakeBackup makes a backup of a machine whose bodies are in its snapshots.
func TakeBackup(m *fsm.Machine, cfg fsm.Config) (*Backup, error) {
	s, err := m.Snapshot()
	if err != nil {
		return nil, err
	}
	defer s.Release()
	var stream bytes.Buffer
	if _, err := s.WriteTo(&stream); err != nil {
		return nil, err
	}
	b := &Backup{}
	w := fsm.NewBackupWriter(cfg, backupSink{b})
	if err := w.Read(&stream); err != nil {
		return nil, err
	}
	if err := w.End(); err != nil {
		return nil, err
	}
	return b, b.Verify(cfg)
}

// Verify reads the backup as `onceq backup verify` does.
func (b *Backup) Verify(cfg fsm.Config) error {
	r := fsm.NewBackupReader(cfg.Group, b.Head)
	for i, p := range b.Parts {
		read := r.Tables
		if p.Kind == wire.BackupBodies {
			read = r.Bodies
		}
		if err := read(p.Data); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
	}
	return r.End()
}

type backupSink struct{ b *Backup }

func (s backupSink) Head(h fsm.BackupHead) error { s.b.Head = h; return nil }

func (s backupSink) Tables(data []byte) error {
	s.b.Parts = append(s.b.Parts, wire.BackupPart{Kind: wire.BackupTables, Data: data})
	return nil
}

func (s backupSink) Bodies(data []byte, n int) error {
	s.b.Parts = append(s.b.Parts, wire.BackupPart{Kind: wire.BackupBodies, Bodies: uint64(n), Data: data})
	return nil
}

// Begin is the command that announces it.
func (b *Backup) Begin(life, next, replaces uint64, force bool) Command {
	return New(wire.RestoreBegin{
		Incarnation: life, Group: Group, Next: next, Replaces: replaces, Cluster: "before", From: b.Head.Incarnation,
		Backup: b.ID, QueueMax: b.Head.QueueMax, Force: force,
	})
}

// Chunks are the commands that bring it.
func (b *Backup) Chunks(life, next uint64) (cs []Command) {
	for i, p := range b.Parts {
		cs = append(cs, New(wire.RestoreChunk{Incarnation: life, Group: Group, Next: next, Number: uint64(i), Kind: p.Kind, Data: p.Data}))
	}
	return cs
}

// End is the command that puts it in place, or drops it.
func (b *Backup) End(life, next uint64, abort bool) Command {
	return New(wire.RestoreEnd{Incarnation: life, Group: Group, Next: next, Chunks: uint64(len(b.Parts)), Abort: abort})
}
