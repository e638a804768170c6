package member

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/hashicorp/raft"
)

// peersMax bounds every list of nodes that is stored or sent.
const peersMax = 64

// Stage says how far a node is on its way into a cluster. The values are on
// disk and on the wire and are only ever appended to.
//
//	empty ──mint──> minted ──all accepted──> committed ──raft bootstrapped──> member
//	  │ <──withdraw──┘                                                          ^
//	  ├──accept──> accepted ──learned that it was committed─────────────────────┤
//	  │ <──released by a withdrawal──┘                                          │
//	  └──join answered──────────────────────────────────────────────────────────┘
type Stage uint8

const (
	// StageEmpty: belongs to no cluster.
	StageEmpty Stage = iota
	// StageMinted: made a cluster id and asks the others to accept it. Nothing
	// was done with it yet, so it may still be withdrawn.
	StageMinted
	// StageAccepted: accepted the id of another node, and refuses every other
	// until that node itself says that it no longer holds it.
	StageAccepted
	// StageCommitted: every other founding member has accepted; this node alone
	// bootstraps raft. Never left except towards member.
	StageCommitted
	// StageMember: belongs to the cluster, for good.
	StageMember
)

func (s Stage) String() string {
	switch s {
	case StageEmpty:
		return "empty"
	case StageMinted:
		return "minted"
	case StageAccepted:
		return "accepted"
	case StageCommitted:
		return "committed"
	case StageMember:
		return "member"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Secret is the cluster secret. It prints as a word, so that it does not get
// into a log by accident.
type Secret [SecretBytes]byte

// SecretBytes is the length of the cluster secret and of an operator's key.
const SecretBytes = 32

func (Secret) String() string   { return "secret" }
func (Secret) GoString() string { return "secret" }

// ClusterInfo is what a node knows of the cluster it accepted.
type ClusterInfo struct {
	// ID names the cluster for ever.
	ID string
	// Incarnation is the cluster's life between restores, never 0.
	Incarnation uint64
	// Minter made the id; it alone bootstraps raft.
	Minter raft.ServerID
	// Secret authenticates raft streams and keys gossip.
	Secret Secret
	// Keyed says that Secret is the operator's key: it was never sent anywhere,
	// and who wants to join has to have it.
	Keyed bool
	// Members are the founding voters, by server id.
	Members []Peer
}

// Identity is what a data directory says about its node.
type Identity struct {
	Name     string
	ServerID raft.ServerID
	// Start grows with each start of the process: the newest of several claims
	// about where this node is has the highest.
	Start   uint64
	Stage   Stage
	Cluster ClusterInfo // zero in StageEmpty
	// Address and GossipAddress are those advertised last.
	Address       string
	GossipAddress string
	// Peers are the other nodes as they were known last, to find them again.
	Peers []Peer
	// Former is the cluster to which this directory belonged under an earlier
	// server id, see Dir.Renew. Such a node joins that cluster and does nothing
	// else: it would form a new one beside what is left of its own.
	Former string
	// Logged says that a raft log was made here under this server id. A log
	// that is not there any more is then a loss, and not a beginning.
	Logged bool
}

// Self is the node as others should know it.
func (id Identity) Self() Peer {
	return Peer{Name: id.Name, ServerID: id.ServerID, Address: id.Address, Gossip: id.GossipAddress}
}

func (id Identity) clone() Identity {
	id.Cluster.Members = slices.Clone(id.Cluster.Members)
	id.Peers = slices.Clone(id.Peers)
	return id
}

// ErrIdentityDamaged is returned for an identity file that was not written by
// this program or was changed since.
var ErrIdentityDamaged = errors.New("identity file is damaged")

const (
	identityMagic    = "onceqid\n"
	identityVersion  = 1
	identityBytesMax = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeIdentity lays out the identity file:
//
//	magic "onceqid\n" | version u8 | CRC32C u32 over all after it | body
func encodeIdentity(id Identity) []byte {
	var w writer
	w.str(id.Name)
	w.str(string(id.ServerID))
	w.u64(id.Start)
	w.u8(uint8(id.Stage))
	w.cluster(id.Cluster, true)
	w.str(id.Address)
	w.str(id.GossipAddress)
	w.peers(id.Peers)
	w.str(id.Former)
	w.flag(id.Logged)
	out := append([]byte(identityMagic), identityVersion)
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(w.b, castagnoli))
	return append(out, w.b...)
}

func decodeIdentity(b []byte) (Identity, error) {
	head := len(identityMagic) + 1 + 4
	if len(b) < head || !bytes.HasPrefix(b, []byte(identityMagic)) {
		return Identity{}, fmt.Errorf("%w: not an identity file", ErrIdentityDamaged)
	}
	if v := b[len(identityMagic)]; v != identityVersion {
		return Identity{}, fmt.Errorf("identity file has format %d, this program reads %d: use the program that wrote it or a newer one", v, identityVersion)
	}
	if sum := binary.BigEndian.Uint32(b[head-4 : head]); sum != crc32.Checksum(b[head:], castagnoli) {
		return Identity{}, fmt.Errorf("%w: checksum mismatch", ErrIdentityDamaged)
	}
	r := reader{b: b[head:]}
	var id Identity
	id.Name = r.str(nameBytesMax)
	id.ServerID = raft.ServerID(r.str(serverIDBytesMax))
	id.Start = r.u64()
	id.Stage = Stage(r.u8())
	id.Cluster = r.cluster(true)
	id.Address = r.str(addressBytesMax)
	id.GossipAddress = r.str(addressBytesMax)
	id.Peers = r.peers()
	id.Former = r.str(clusterBytesMax)
	id.Logged = r.flag()
	if err := r.done(); err != nil {
		return Identity{}, fmt.Errorf("%w: %v", ErrIdentityDamaged, err)
	}
	if id.Stage > StageMember || CheckName(id.Name) != nil || NameOf(id.ServerID) != id.Name ||
		(id.Stage == StageEmpty) != (id.Cluster.ID == "") {
		return Identity{}, fmt.Errorf("%w: contradicts itself", ErrIdentityDamaged)
	}
	return id, nil
}
