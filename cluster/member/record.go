package member

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
)

// recordBytesMax is the most payload in one record; the header has 16 bits for it.
const recordBytesMax = 64 << 10

const recordHeaderBytes = 8

// ErrBadRecord is the read error of a stream on which bytes changed, got lost
// or came twice. The stream is closed: nothing after it can be trusted.
var ErrBadRecord = errors.New("bad record on node-to-node stream")

// recordConn puts a checksum over what travels between nodes, because TCP's own
// is weak and on virtual interfaces often not computed at all.
//
//	length-1 u16 | check u16 of number and length | CRC32C u32 over number, length and payload | payload
//
// The number counts the records of one direction and is not sent: a record that
// is lost or repeated fails as well. The length has a check of its own, since nobody
// may wait for what a damaged one promises: heartbeats would come meanwhile, on
// another stream, and the follower that waits here would seem to be alive.
type recordConn struct {
	net.Conn

	rmu     sync.Mutex // one reader at a time
	br      *bufio.Reader
	rbuf    []byte // owned buffer, grown to the largest record seen
	rest    []byte // what of rbuf was not handed out yet
	rnumber uint64
	rerr    error // sticks once a record was begun and not finished

	wmu     sync.Mutex // one writer at a time
	wbuf    []byte
	wnumber uint64
	werr    error // sticks: the peer has part of a record
}

func newRecordConn(c net.Conn) *recordConn {
	return &recordConn{Conn: c, br: bufio.NewReaderSize(c, 16<<10)}
}

// recordSums are the check of a record's header and the checksum of the whole.
func recordSums(number uint64, length uint32, payload []byte) (check uint16, sum uint32) {
	var head [12]byte
	binary.BigEndian.PutUint64(head[:], number)
	binary.BigEndian.PutUint32(head[8:], length)
	sum = crc32.Checksum(head[:], castagnoli)
	return uint16(sum), crc32.Update(sum, castagnoli, payload)
}

func (c *recordConn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.werr != nil {
		return 0, c.werr
	}
	n := 0
	for n < len(p) {
		part := p[n:min(len(p), n+recordBytesMax)]
		length := uint32(len(part))
		check, sum := recordSums(c.wnumber, length, part)
		c.wbuf = binary.BigEndian.AppendUint16(c.wbuf[:0], uint16(length-1))
		c.wbuf = binary.BigEndian.AppendUint16(c.wbuf, check)
		c.wbuf = binary.BigEndian.AppendUint32(c.wbuf, sum)
		c.wbuf = append(c.wbuf, part...)
		if _, err := c.Conn.Write(c.wbuf); err != nil {
			c.werr = err
			return n, err
		}
		c.wnumber++
		n += len(part)
	}
	return n, nil
}

func (c *recordConn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.rest) == 0 {
		n, err := c.next(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// next reads one record: straight into p if it fits, else into rbuf.
func (c *recordConn) next(p []byte) (int, error) {
	if c.rerr != nil {
		return 0, c.rerr
	}
	// Waiting for a record may time out and be tried again, for nothing of it
	// has been taken.
	header, err := c.br.Peek(recordHeaderBytes)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	length, sum := uint32(binary.BigEndian.Uint16(header))+1, binary.BigEndian.Uint32(header[4:])
	if check, _ := recordSums(c.rnumber, length, nil); check != binary.BigEndian.Uint16(header[2:]) {
		return 0, c.bad(fmt.Errorf("%w: the length %d of record %d does not go with its check", ErrBadRecord, length, c.rnumber))
	}
	c.br.Discard(recordHeaderBytes)
	direct := int(length) <= len(p)
	payload := p
	if !direct {
		if cap(c.rbuf) < int(length) {
			c.rbuf = make([]byte, length)
		}
		payload = c.rbuf[:length]
	}
	payload = payload[:length]
	if _, err := io.ReadFull(c.br, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.rerr = err
		return 0, err
	}
	if _, want := recordSums(c.rnumber, length, payload); want != sum {
		return 0, c.bad(fmt.Errorf("%w: checksum mismatch in record %d", ErrBadRecord, c.rnumber))
	}
	c.rnumber++
	if direct {
		return int(length), nil
	}
	c.rest = payload
	return 0, nil
}

func (c *recordConn) bad(err error) error {
	c.rerr = err
	c.Conn.Close()
	return err
}
