package wire

import "time"

// Committed answers OpCommitted at the leader: everything that was confirmed
// before the request came is at or below Index.
type Committed struct {
	Index uint64
}

// CommittedRequest asks for it.
type CommittedRequest struct{}

// BackupOpen begins a backup on this connection, one at a time. Any node can
// make it: it waits until it has applied Index, and takes a snapshot then.
type BackupOpen struct {
	Index uint64
}

// BackupHead is what a backup says of itself; it also stands at the beginning of
// a backup's file.
type BackupHead struct {
	ID             BackupID
	Cluster        string
	Incarnation    uint64
	Node           string // that made it
	Index          uint64 // of the log, and the term of that entry
	Term           uint64
	Now            time.Duration // cluster time
	Wall           int64         // when it was begun, by the node's clock, unix ns
	MachineVersion uint32
	QueueMax       uint64 // the highest queue number that was given out
	Queues         uint64
	Messages       uint64
	Sessions       uint64
}

// BackupRead asks for the next part, from 0 on.
type BackupRead struct {
	Number uint64
}

// BackupKind is what a part of a backup holds. Values are in files.
type BackupKind uint8

// The kinds of parts. The queue machine reads tables and bodies.
const (
	BackupTables BackupKind = 1
	BackupBodies BackupKind = 2
	BackupEnd    BackupKind = 255 // nothing follows
)

// BackupPart answers BackupRead. Bodies counts those in Data.
type BackupPart struct {
	Kind   BackupKind
	Bodies uint64
	Data   []byte
}

// BackupID is made at random with a backup and tells it from others.
type BackupID [16]byte

// RestoreBegin announces a backup that is to take the place of everything here.
// Who asks makes up the incarnation that begins with it, so that each request of
// a restore can be repeated and a late copy of an older one has no effect.
type RestoreBegin struct {
	Incarnation uint64 // the present one
	Group       uint32
	Next        uint64 // the one that begins
	Replaces    uint64 // the restore under way whose place it takes, by its Next; 0: none
	Cluster     string // where the backup comes from
	From        uint64 // its incarnation there
	Backup      BackupID
	QueueMax    uint64
	Force       bool // also when there are queues
}

// RestoreChunk brings the next part of a backup.
type RestoreChunk struct {
	Incarnation uint64
	Group       uint32
	Next        uint64
	Number      uint64 // from 0; a lower one than expected is a repeat
	Kind        BackupKind
	Data        []byte
}

// RestoreEnd puts the backup in the place of everything, or forgets it.
type RestoreEnd struct {
	Incarnation uint64
	Group       uint32
	Next        uint64
	Chunks      uint64
	Abort       bool
}

// RestoreReply answers the three with what is the case now.
type RestoreReply struct {
	Status      Status
	Incarnation uint64   // the present one; Next when the restore is done
	Backup      BackupID // of the backup that was restored last
	Under       uint64   // the restore that is under way, by its Next; 0: none
	Chunks      uint64   // taken of it
	Queues      uint64   // that are here
	Messages    uint64
	Text        string // why the backup cannot be taken
}
