package hosts

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// segment is a TCP packet with that data and the right checksum.
func segment(data []byte) []byte {
	p := make([]byte, 40+len(data))
	p[0], p[9] = 0x45, protocolTCP
	copy(p[12:], []byte{198, 18, 0, 11, 198, 18, 0, 12})
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[20+12] = 5 << 4
	copy(p[40:], data)
	binary.BigEndian.PutUint16(p[20+16:], checksum(p))
	return p
}

// checksum is that of the TCP part, computed the long way (RFC 793).
func checksum(p []byte) uint16 {
	tcp := bytes.Clone(p[20:])
	tcp[16], tcp[17] = 0, 0
	length := len(tcp)
	if length%2 != 0 {
		tcp = append(tcp, 0)
	}
	sum := uint32(protocolTCP) + uint32(length)
	for _, part := range [][]byte{p[12:20], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestCorrupt_ChangesOneBitOfTheDataAndKeepsTheChecksumRight(t *testing.T) {
	t.Parallel()
	for n := 1; n < 50; n++ {
		for range 50 {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			p := segment(data)
			before := bytes.Clone(p)
			if !corrupt(p, rand.Uint64()) {
				t.Fatalf("a packet with %d bytes of data is not changed", n)
			}
			bits := 0
			for i := range data {
				for x := data[i] ^ p[40+i]; x != 0; x &= x - 1 {
					bits++
				}
			}
			if bits != 1 {
				t.Fatalf("%d bits of the data are changed", bits)
			}
			if got, want := binary.BigEndian.Uint16(p[36:]), checksum(p); got != want {
				t.Fatalf("the checksum is %04x, want %04x (%d bytes)", got, want, n)
			}
			p[36], p[37] = before[36], before[37]
			if !bytes.Equal(p[:40], before[:40]) {
				t.Fatal("the header is changed")
			}
		}
	}
}

func TestCorrupt_LeavesAloneWhatHasNoData(t *testing.T) {
	t.Parallel()
	udp := segment([]byte("data"))
	udp[9] = 17
	for name, p := range map[string][]byte{
		"nothing": nil, "short": {0x45}, "only a header": segment(nil), "another protocol": udp,
		"a header that is cut off": segment(nil)[:25],
	} {
		before := bytes.Clone(p)
		if corrupt(p, 1) || !bytes.Equal(p, before) {
			t.Errorf("%s is changed", name)
		}
	}
}

func TestAddresses_OfIPv4Only(t *testing.T) {
	t.Parallel()
	from, to, ok := addresses(segment(nil))
	if !ok || from.String() != "198.18.0.11" || to.String() != "198.18.0.12" {
		t.Errorf("%v to %v, %v", from, to, ok)
	}
	six := make([]byte, 60)
	six[0] = 0x60
	if _, _, ok := addresses(six); ok {
		t.Error("IPv6 has addresses of IPv4")
	}
	if _, _, ok := addresses(nil); ok {
		t.Error("nothing has addresses")
	}
}
