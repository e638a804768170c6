package hosts

import (
	"encoding/binary"
	"net/netip"
)

// An IPv4 packet, as far as the switch looks at it:
//
//	byte 0      version (4 bits), header length in words (4 bits)
//	byte 9      protocol
//	bytes 12-15 source, 16-19 destination
const (
	headerLeast = 20
	protocolTCP = 6
)

// addresses returns where a packet comes from and goes to.
func addresses(p []byte) (from, to netip.Addr, ok bool) {
	if len(p) < headerLeast || p[0]>>4 != 4 {
		return from, to, false
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
}

// corrupt flips a bit of the data of a TCP packet and makes the checksum fit, as
// a broken network card or switch does that computes it anew: the receiver's
// kernel takes the packet. chance picks the bit. It is false for a packet without
// data.
func corrupt(p []byte, chance uint64) bool {
	if len(p) < headerLeast || p[0]>>4 != 4 || p[9] != protocolTCP {
		return false
	}
	ip := int(p[0]&15) * 4
	if len(p) < ip+20 {
		return false
	}
	data := ip + int(p[ip+12]>>4)*4
	if len(p) <= data {
		return false
	}
	at := data + int(chance%uint64(len(p)-data))
	// The checksum is the complement of a sum of words, so the change of one word
	// changes it by as much (RFC 1624).
	word := at - (at-ip)%2
	var before, after uint16
	before = wordAt(p, word)
	p[at] ^= 1 << (chance >> 32 % 8)
	after = wordAt(p, word)
	sum := uint32(^binary.BigEndian.Uint16(p[ip+16:])) + uint32(^before) + uint32(after)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[ip+16:], ^uint16(sum))
	return true
}

// wordAt is a word of the checksum; the last byte of an odd length has a zero
// after it.
func wordAt(p []byte, i int) uint16 {
	if i+1 < len(p) {
		return binary.BigEndian.Uint16(p[i:])
	}
	return uint16(p[i]) << 8
}
