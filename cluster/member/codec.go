package member

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// errMalformed is what every decoder of this package answers to bytes that are
// not what they should be.
var errMalformed = errors.New("malformed")

// writer appends fixed-width big-endian numbers and strings with a length of
// two bytes. Everything this package sends or stores is made of these.
type writer struct{ b []byte }

func (w *writer) u8(v uint8)   { w.b = append(w.b, v) }
func (w *writer) u16(v uint16) { w.b = binary.BigEndian.AppendUint16(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }
func (w *writer) raw(v []byte) { w.b = append(w.b, v...) }
func (w *writer) str(v string) {
	w.u16(uint16(len(v)))
	w.b = append(w.b, v...)
}
func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

// reader is the opposite. The first error sticks, and after it every method
// returns a zero value. Nothing is allocated before the bytes are there.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errMalformed, what)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail("too short")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) str(limit int) string {
	n := int(r.u16())
	if n > limit {
		r.fail("string too long")
		return ""
	}
	return string(r.take(n))
}

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.fail("flag")
	}
	return v == 1
}

func (r *reader) fixed(dst []byte) { copy(dst, r.take(len(dst))) }

func (r *reader) count(limit int) int {
	n := int(r.u16())
	if n > limit {
		r.fail("list too long")
		return 0
	}
	return n
}

// done fails if bytes remain.
func (r *reader) done() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("bytes after the end")
	}
	return r.err
}

func (w *writer) peer(p Peer) {
	w.str(p.Name)
	w.str(string(p.ServerID))
	w.str(p.Address)
	w.str(p.Gossip)
}

func (r *reader) peer() Peer {
	return Peer{
		Name:     r.str(nameBytesMax),
		ServerID: raft.ServerID(r.str(serverIDBytesMax)),
		Address:  r.str(addressBytesMax),
		Gossip:   r.str(addressBytesMax),
	}
}

func (w *writer) peers(ps []Peer) {
	w.u16(uint16(len(ps)))
	for _, p := range ps {
		w.peer(p)
	}
}

func (r *reader) peers() []Peer {
	n := r.count(peersMax)
	var ps []Peer
	for range n {
		p := r.peer()
		if r.err != nil {
			return nil
		}
		ps = append(ps, p)
	}
	return ps
}

// cluster is written with the secret to disk, and to a node that was given no
// key by its operator; an operator's key never travels.
func (w *writer) cluster(c ClusterInfo, disk bool) {
	w.str(c.ID)
	w.u64(c.Incarnation)
	w.str(string(c.Minter))
	w.flag(c.Keyed)
	if disk || !c.Keyed {
		w.raw(c.Secret[:])
	}
	w.peers(c.Members)
}

func (r *reader) cluster(disk bool) (c ClusterInfo) {
	c.ID = r.str(clusterBytesMax)
	c.Incarnation = r.u64()
	c.Minter = raft.ServerID(r.str(serverIDBytesMax))
	c.Keyed = r.flag()
	if disk || !c.Keyed {
		r.fixed(c.Secret[:])
	}
	c.Members = r.peers()
	return c
}
