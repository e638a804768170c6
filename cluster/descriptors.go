package cluster

import (
	"errors"
	"fmt"

	"onceq/fsm/storage"
	"onceq/transport"
)

const (
	// descriptorsKept are for all but clients and tables of bodies. A node that
	// is alone and idle has 26 open. The log has more than thirty when it is full, each of up
	// to eight peers takes up to ten for streams and snapshots; strangers that pretend to
	// be peers, or are told that there is no room, take up to 192, and those at the gossip
	// port up to 32.
	descriptorsKept = 384
	// descriptorsMin leaves room for a few dozen clients.
	descriptorsMin = 512
)

// ErrDescriptors is wrapped by the error for a process that may have too few files open to
// be a node.
var ErrDescriptors = errors.New("too few files may be open")

// descriptors are what a node may have open of each kind that others can make it open. The
// log needs one when it changes to a new segment, and a node that gets none ends: clients
// that come without end must not take the last.
type descriptors struct {
	clients int
	silent  int // connections that have not said yet what they are
	tables  int // of bodies
}

// shareDescriptors divides what the process may have open.
func shareDescriptors(limit uint64) (d descriptors, err error) {
	if limit < descriptorsMin {
		return d, fmt.Errorf("%w: %d, and a node needs %d, more with many clients: raise the limit (ulimit -n, LimitNOFILE of systemd)",
			ErrDescriptors, limit, descriptorsMin)
	}
	left := int(min(limit, 1<<30)) - descriptorsKept
	d.tables = min(storage.OpenTables, left/2)
	left -= d.tables
	d.silent = min(transport.SilentMax, left/5)
	d.clients = min(transport.ConnsMax, left-d.silent)
	return d, nil
}

// limitDescriptors comes before the first is needed. The zero descriptors, which bound
// nothing further, are for a system that does not tell, and for a node that has no files.
func (n *Node) limitDescriptors() (err error) {
	limit, known := descriptorLimit()
	if n.cfg.descriptors > 0 {
		limit, known = n.cfg.descriptors, true
	}
	if !known || n.cfg.MemoryStores != nil {
		return nil
	}
	if n.descriptors, err = shareDescriptors(limit); err != nil {
		return err
	}
	if n.descriptors.clients < transport.ConnsMax {
		n.log.Warn("this process may have so few files open that fewer clients can connect: raise the limit (ulimit -n, LimitNOFILE of systemd)",
			"limit", limit, "clients", n.descriptors.clients, "usual", transport.ConnsMax)
	}
	return nil
}
