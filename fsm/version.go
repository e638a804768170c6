package fsm

import (
	"errors"
	"fmt"

	"onceq/transport/wire/pack"
)

// The machine's version says what the log means: which commands there are, and what
// each does. Nodes of different builds apply one log, so a build knows every version
// up to its own, and which of them counts is part of the replicated state. A new
// cluster begins with the first. The leader raises it, by a command in the log, when
// every member can follow: from that index on all of them behave alike. It is never
// lowered.

const (
	// MachineVersion is the newest version that this build knows. It changes with
	// whatever makes the same log lead to another state.
	MachineVersion uint32 = 4
	// machineVersionFirst is where a new cluster begins.
	machineVersionFirst uint32 = 1
	// versionSealedKeepsOrder is the first in which a sealed sequence does not let
	// through what names it in After.
	versionSealedKeepsOrder uint32 = 3
	// versionRestoredAnswers is the first in which a session from before a restore
	// answers also who opened it again after the backup was taken.
	versionRestoredAnswers uint32 = 3
	// versionRestoreBound is the first in which the tables of a restore are bounded.
	versionRestoreBound uint32 = 3
	// versionRestoreDoubts is the first in which a restore is refused also for what
	// audit calls doubts.
	versionRestoreDoubts uint32 = 4
	// versionBodiesPlaced is the first in which a restore takes no body for which its
	// tables have no message.
	versionBodiesPlaced uint32 = 4
	// versionPlainInTime is the first in which a message without a time to live of its
	// own that comes back is dropped no earlier than one that was never handed out.
	versionPlainInTime uint32 = 4
	// versionTimersInTurn is the first in which one owner of a timer takes at most half
	// of what an entry may do, and then goes behind those that were due before.
	versionTimersInTurn uint32 = 4
	// versionExtendAfterResume is the first in which a lease that is extended wakes its
	// consumer no earlier than a resume lets it end.
	versionExtendAfterResume uint32 = 4
	// versionRedriveKeepsLane is the first in which a dead letter that goes back to where
	// it came from has its priority again.
	versionRedriveKeepsLane uint32 = 4
	// versionGoneRanges is the first that tells by ranges what is gone ahead of a head.
	versionGoneRanges uint32 = 4
	// versionMilestoneAtHead is the first in which the first milestone of a lane covers its
	// head also while that lags behind records.
	versionMilestoneAtHead uint32 = 4
	// versionNotesBounded is the first in which what failed messages remember is bounded.
	versionNotesBounded uint32 = 4
)

// since has the version with which a kind of command came. Others came with the
// first.
var since = [256]uint32{
	KindReceive: 2,
	KindRelease: 2,
}

// Since is the version with which a kind of command came. Before the machine has that
// version the command is refused as unsupported, and a leader does not propose it.
func Since(k Kind) uint32 { return max(since[k], machineVersionFirst) }

// ErrVersion is returned by Apply for an entry that raises the machine to a version
// that this build does not know: the node must stop, and be started with a newer
// build.
var ErrVersion = errors.New("the cluster has a newer machine version than this build knows")

// Version returns the machine's version.
func (m *Machine) Version() uint32 { return m.version }

// RaisePayload is the payload of KindRaise.
func RaisePayload(version uint32) []byte {
	var w pack.Writer
	w.Array(1)
	w.Uint(uint64(version))
	return w.Bytes()
}

func (d *decoder) decodeRaise(p []byte) (version uint32, err error) {
	r := d.begin(p, 1)
	version = r.Uint32()
	return version, r.Done()
}

// raise takes the machine to a version. A late copy, of a version that it has
// passed, changes nothing.
func (m *Machine) raise(version uint32) (Status, error) {
	if version > m.supports {
		return 0, fmt.Errorf("%w: version %d, this build knows %d: start the node with the build that the other nodes have", ErrVersion, version, m.supports)
	}
	m.version = max(m.version, version)
	return StatusOK, nil
}
