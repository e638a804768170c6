package member

import (
	"fmt"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

const metaVersion = 1

// meta is what a node tells about itself in gossip. With every field at its
// limit it has less than memberlist's 512 bytes, which a test holds.
type meta struct {
	Peer    Peer
	Start   uint64
	Cluster string
	Stage   Stage
	Disk    uint8 // how full its disk is; the levels are the caller's
}

func (m meta) encode() []byte {
	var w writer
	w.u8(metaVersion)
	w.str(string(m.Peer.ServerID)) // the name is in it
	w.str(m.Peer.Address)
	w.str(m.Peer.Gossip)
	w.u64(m.Start)
	w.str(m.Cluster)
	w.u8(uint8(m.Stage))
	w.u8(m.Disk)
	return w.b
}

func decodeMeta(b []byte) (m meta, err error) {
	if len(b) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("%w: %d bytes of metadata", errMalformed, len(b))
	}
	r := reader{b: b}
	if v := r.u8(); r.err == nil && v != metaVersion {
		return m, fmt.Errorf("metadata version %d, this node knows %d", v, metaVersion)
	}
	m.Peer.ServerID = raft.ServerID(r.str(serverIDBytesMax))
	m.Peer.Address = r.str(addressBytesMax)
	m.Peer.Gossip = r.str(addressBytesMax)
	m.Start = r.u64()
	m.Cluster = r.str(clusterBytesMax)
	m.Stage = Stage(r.u8())
	m.Disk = r.u8()
	m.Peer.Name = NameOf(m.Peer.ServerID)
	if err := r.done(); err != nil {
		return m, err
	}
	return m, checkPeer(m.Peer)
}
