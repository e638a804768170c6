package bare

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

type kind = byte

const (
	kindHello kind = iota + 1
	kindPublish
	kindSubscribe
	kindAck
	kindConfirmed
	kindDeliver
	kindDelete
)

// frameBytesMax bounds a frame, and with it what a stranger can make a node keep.
const frameBytesMax = 8 << 20

var errMalformed = errors.New("malformed")

// readFrame reads the next frame into memory of its own: what is in it stays.
func readFrame(r *bufio.Reader) (k kind, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > frameBytesMax {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", errMalformed, n)
	}
	body = make([]byte, n-1)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

// block takes the next message off blocks of them.
func block(b []byte) (message, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: the end of a block", errMalformed)
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, fmt.Errorf("%w: a message of %d bytes in %d", errMalformed, n, len(b)-4)
	}
	return b[4 : 4+n : 4+n], b[4+n:], nil
}

// blocks counts messages.
func blocks(b []byte) (n int, err error) {
	for ; len(b) > 0; n++ {
		if _, b, err = block(b); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// outbox is what goes out on a connection: whoever adds to it does not wait, and one
// write takes all there is.
type outbox struct {
	conn net.Conn
	wake chan struct{} // cap 1

	mu    sync.Mutex // guards what follows
	out   []byte
	spare []byte // the buffer that was written last
}

func newOutbox(conn net.Conn) *outbox { return &outbox{conn: conn, wake: make(chan struct{}, 1)} }

// add has fill append to what goes out.
func (o *outbox) add(fill func(out []byte) []byte) {
	o.mu.Lock()
	o.out = fill(o.out)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// frame adds one.
func (o *outbox) frame(k kind, fill func(out []byte) []byte) {
	o.add(func(out []byte) []byte {
		at := len(out)
		out = fill(append(out, 0, 0, 0, 0, k))
		binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at-4))
		return out
	})
}

// take is what is there, for one write.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.out
	o.out, o.spare = o.spare[:0], out
	return out
}

// run writes until done is closed, or the connection is.
func (o *outbox) run(done <-chan struct{}) {
	defer o.conn.Close()
	for {
		select {
		case <-o.wake:
		case <-done:
			return
		}
		if _, err := o.conn.Write(o.take()); err != nil {
			return
		}
	}
}
