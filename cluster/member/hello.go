package member

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// A node-to-node stream begins with a handshake in which both ends prove that
// they have the key, each over a number that the other has just made up, so
// that recorded bytes prove nothing when they are sent again:
//
//	client: 'R' | length u16 | hello
//	server:       length u16 | challenge | HMAC(key, "server", hello, challenge)
//	client:                                HMAC(key, "client", hello, challenge)
//	server:       length u16 | verdict
//
// A refused client gets a challenge or verdict with a text for people, and the
// server closes. Until the client's HMAC is checked no byte of the stream
// reaches anybody else, and the handshake has a bound in bytes and in time.
const (
	streamByte        = 'R' // the first byte tells node streams from clients on the shared port
	helloVersion      = 1
	handshakeBytesMax = 1024
	nonceBytes        = 32
	handshakeTimeout  = 5 * time.Second
)

// purpose says what a stream is for. The values are on the wire.
type purpose uint8

const (
	purposeRaft   purpose = 1 // raft's network transport
	purposeEnroll purpose = 2 // questions between nodes before they share a cluster: see enroll.go
	purposeJoin   purpose = 3 // one JoinRequest
)

func (p purpose) String() string {
	switch p {
	case purposeRaft:
		return "raft"
	case purposeEnroll:
		return "bootstrap"
	case purposeJoin:
		return "join"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// keyKind says which key the client uses. The values are on the wire.
type keyKind uint8

const (
	keyOpen     keyKind = 1 // none: openKey, which everybody knows
	keyOperator keyKind = 2
	keySecret   keyKind = 3 // the cluster secret; for raft always this one
)

// openKey stands for the key where the operator gave none. It proves nothing
// and saves a second form of the handshake.
var openKey = sha256.Sum256([]byte("onceq: no cluster key"))

var (
	// ErrRefused is returned when the node at the other end refused a stream.
	// The text says why.
	ErrRefused = errors.New("refused by the other node")
	// ErrWrongNode is returned when another node than the one wanted answers
	// at an address, or one that does not have the key.
	ErrWrongNode = errors.New("another node answers there")

	errHandshake = errors.New("handshake")
)

// hello is what the client says of itself.
type hello struct {
	Purpose     purpose
	Key         keyKind
	Cluster     string
	Incarnation uint64
	ServerID    raft.ServerID
	Nonce       [nonceBytes]byte
}

func (h hello) encode() []byte {
	var w writer
	w.u8(helloVersion)
	w.u8(uint8(h.Purpose))
	w.u8(uint8(h.Key))
	w.str(h.Cluster)
	w.u64(h.Incarnation)
	w.str(string(h.ServerID))
	w.raw(h.Nonce[:])
	return w.b
}

func decodeHello(b []byte) (h hello, err error) {
	r := reader{b: b}
	if v := r.u8(); r.err == nil && v != helloVersion {
		return h, fmt.Errorf("%w: hello version %d, this node speaks %d", errHandshake, v, helloVersion)
	}
	h.Purpose = purpose(r.u8())
	h.Key = keyKind(r.u8())
	h.Cluster = r.str(clusterBytesMax)
	h.Incarnation = r.u64()
	h.ServerID = raft.ServerID(r.str(serverIDBytesMax))
	r.fixed(h.Nonce[:])
	if err := r.done(); err != nil {
		return h, err
	}
	if h.Purpose < purposeRaft || h.Purpose > purposeJoin || h.Key < keyOpen || h.Key > keySecret {
		return h, fmt.Errorf("%w: %s with key %d", errMalformed, h.Purpose, h.Key)
	}
	return h, nil
}

// challenge is the server's answer; with Refusal set the rest has no meaning.
type challenge struct {
	Refusal  string
	ServerID raft.ServerID
	Nonce    [nonceBytes]byte
}

const refusalBytesMax = 512

func (c challenge) encode() []byte {
	var w writer
	w.str(c.Refusal)
	w.str(string(c.ServerID))
	w.raw(c.Nonce[:])
	return w.b
}

func decodeChallenge(b []byte) (c challenge, err error) {
	r := reader{b: b}
	c.Refusal = r.str(refusalBytesMax)
	c.ServerID = raft.ServerID(r.str(serverIDBytesMax))
	r.fixed(c.Nonce[:])
	return c, r.done()
}

func proof(key []byte, role string, hello, challenge []byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte("onceq " + role), hello, challenge} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		mac.Write(n[:])
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// dialHandshake is the client's half. want is the server id that has to answer,
// "" for any.
func dialHandshake(c net.Conn, key []byte, h hello, want raft.ServerID) (raft.ServerID, error) {
	rand.Read(h.Nonce[:])
	hb := h.encode()
	if err := writeBlock(c, []byte{streamByte}, hb, nil); err != nil {
		return "", err
	}
	cb, err := readBlock(c)
	if err != nil {
		return "", fmt.Errorf("read challenge: %w", err)
	}
	ch, err := decodeChallenge(cb)
	if err != nil {
		return "", err
	}
	if ch.Refusal != "" {
		return "", fmt.Errorf("%w: %s", ErrRefused, ch.Refusal)
	}
	var mac [sha256.Size]byte
	if _, err := io.ReadFull(c, mac[:]); err != nil {
		return "", fmt.Errorf("read challenge: %w", err)
	}
	if !hmac.Equal(mac[:], proof(key, "server", hb, cb)) {
		return "", fmt.Errorf("%w: it does not have this node's key", ErrWrongNode)
	}
	if want != "" && ch.ServerID != want {
		return "", fmt.Errorf("%w: %s instead of %s", ErrWrongNode, ch.ServerID, want)
	}
	if _, err := c.Write(proof(key, "client", hb, cb)); err != nil {
		return "", err
	}
	vb, err := readBlock(c)
	if err != nil {
		return "", fmt.Errorf("read verdict: %w", err)
	}
	r := reader{b: vb}
	refusal := r.str(refusalBytesMax)
	if err := r.done(); err != nil {
		return "", err
	}
	if refusal != "" {
		return "", fmt.Errorf("%w: %s", ErrRefused, refusal)
	}
	return ch.ServerID, nil
}

// gate is what a server decides in a handshake.
type gate struct {
	self raft.ServerID
	// key says which key the client has to prove, or why it is refused.
	key func(h hello) ([]byte, error)
	// admit has the last word on a client that has proved its key.
	admit func(h hello) error
}

// acceptHandshake is the server's half. An error means that the stream has to
// be closed; the client has been told if it could be.
func acceptHandshake(c net.Conn, g gate) (hello, error) {
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return hello{}, fmt.Errorf("read hello: %w", err)
	}
	if first[0] != streamByte {
		return hello{}, fmt.Errorf("%w: first byte %#x", errMalformed, first[0])
	}
	hb, err := readBlock(c)
	if err != nil {
		return hello{}, fmt.Errorf("read hello: %w", err)
	}
	h, err := decodeHello(hb)
	var key []byte
	if err == nil {
		key, err = g.key(h)
	}
	if err != nil {
		writeBlock(c, nil, challenge{Refusal: bounded(err.Error())}.encode(), nil)
		return h, err
	}
	ch := challenge{ServerID: g.self}
	rand.Read(ch.Nonce[:])
	cb := ch.encode()
	if err := writeBlock(c, nil, cb, proof(key, "server", hb, cb)); err != nil {
		return h, err
	}
	var mac [sha256.Size]byte
	if _, err := io.ReadFull(c, mac[:]); err != nil {
		return h, fmt.Errorf("read proof: %w", err)
	}
	if !hmac.Equal(mac[:], proof(key, "client", hb, cb)) {
		return h, fmt.Errorf("%w: %s does not have the key", errHandshake, h.ServerID)
	}
	err = g.admit(h)
	var verdict writer
	if err != nil {
		verdict.str(bounded(err.Error()))
	} else {
		verdict.str("")
	}
	if werr := writeBlock(c, nil, verdict.b, nil); err == nil {
		err = werr
	}
	return h, err
}

func bounded(text string) string {
	return text[:min(len(text), refusalBytesMax)]
}

// writeBlock writes prefix, length, block and suffix at once.
func writeBlock(c net.Conn, prefix, block, suffix []byte) error {
	b := make([]byte, 0, len(prefix)+2+len(block)+len(suffix))
	b = append(b, prefix...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(block)))
	b = append(b, block...)
	b = append(b, suffix...)
	_, err := c.Write(b)
	return err
}

func readBlock(c net.Conn) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > handshakeBytesMax {
		return nil, fmt.Errorf("%w: %d bytes in a handshake", errMalformed, n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}
