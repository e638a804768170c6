package member

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/raft"
)

// Limits of what names a node. Together they keep a node's gossip metadata
// within the 512 bytes that memberlist grants.
const (
	nameBytesMax     = 64
	addressBytesMax  = 120
	serverIDBytesMax = nameBytesMax + 1 + 2*serverIDSuffixBytes
	clusterBytesMax  = 64
)

const serverIDSuffixBytes = 6

// Peer is a node as other nodes know it.
type Peer struct {
	// Name is what the operator calls the node.
	Name string
	// ServerID is Name and a random suffix, made once for a data directory. A
	// node whose directory was wiped comes back under another one, so that raft
	// never takes it for the node that promised and stored things before.
	ServerID raft.ServerID
	// Address is where the node accepts clients and raft.
	Address string
	// Gossip is where it accepts gossip, "" when it has none.
	Gossip string
}

// ErrName is returned for a node name that cannot be used.
var ErrName = errors.New("bad node name")

// CheckName refuses names that could be taken for something else where a name
// is printed or joined with other words: 1 to 64 letters, digits, '.', '_' and
// '-', starting with a letter or digit.
func CheckName(name string) error {
	if name == "" || len(name) > nameBytesMax {
		return fmt.Errorf("%w %q: want 1 to %d characters", ErrName, name, nameBytesMax)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("%w %q: want letters, digits, '.', '_' and '-', a letter or digit first", ErrName, name)
		}
	}
	return nil
}

func checkAddress(a string) error {
	if len(a) > addressBytesMax {
		return fmt.Errorf("address %q is longer than %d bytes", a, addressBytesMax)
	}
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("address %q: %w", a, err)
	}
	if port == "" || port == "0" {
		return fmt.Errorf("address %q has no port", a)
	}
	return nil
}

func newServerID(name string) raft.ServerID {
	return raft.ServerID(name + "-" + randomHex(serverIDSuffixBytes))
}

// NameOf is the node name inside a server id: "n1" of "n1-3f9a0c2b77d1". Two
// server ids with one name are a node and what it was before it was wiped.
func NameOf(id raft.ServerID) string {
	s := string(id)
	i := strings.LastIndexByte(s, '-')
	if i <= 0 || len(s)-i-1 != 2*serverIDSuffixBytes {
		return s
	}
	if _, err := hex.DecodeString(s[i+1:]); err != nil {
		return s
	}
	return s[:i]
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

// DialedAddress is how an address travels through raft's network transport:
// "server-id@host:port". The transport knows a connection by this string alone,
// and a port may have passed from one node to another since it was learned.
// Entries acknowledged by the wrong node would count for a majority they do not
// belong to, so the stream layer checks the id at the other end.
func DialedAddress(id raft.ServerID, address string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + address)
}

// PlainAddress is the host:port of a DialedAddress, or of a plain one.
func PlainAddress(a raft.ServerAddress) string {
	_, address := splitDialed(a)
	return address
}

func splitDialed(a raft.ServerAddress) (raft.ServerID, string) {
	id, address, found := strings.Cut(string(a), "@")
	if !found {
		return "", string(a)
	}
	return raft.ServerID(id), address
}
