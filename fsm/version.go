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
	MachineVersion uint32 = 2
	// machineVersionFirst is where a new cluster begins.
	machineVersionFirst uint32 = 1
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
