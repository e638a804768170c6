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

// recordBytesMax is the most payload in one record.
const recordBytesMax = 64 << 10

const recordHeaderBytes = 8

// ErrBadRecord is the read error of a stream on which bytes changed, got lost
// or came twice. The stream is closed: nothing after it can be trusted.
var ErrBadRecord = errors.New("bad record on node-to-node stream")

// recordConn puts a checksum over what travels between nodes, because TCP's own
// is weak and on virtual interfaces often not computed at all.
//
//	length u32 (1 to recordBytesMax) | CRC32C u32 over number, length and payload | payload
//
// The number counts the records of one direction and is not sent: a record that
// is lost or repeated fails as well.
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

func recordSum(number uint64, length uint32, payload []byte) uint32 {
	var head [12]byte
	binary.BigEndian.PutUint64(head[:], number)
	binary.BigEndian.PutUint32(head[8:], length)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload)
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
		c.wbuf = binary.BigEndian.AppendUint32(c.wbuf[:0], length)
		c.wbuf = binary.BigEndian.AppendUint32(c.wbuf, recordSum(c.wnumber, length, part))
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
	length, sum := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	if length == 0 || length > recordBytesMax {
		return 0, c.bad(fmt.Errorf("%w: length %d", ErrBadRecord, length))
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
	if recordSum(c.rnumber, length, payload) != sum {
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
