package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"onceq/transport/wire/pack"
)

// A frame, big endian:
//
//	 0   4  length of what follows this field: 12 + payload
//	 4   4  crc32c of everything that follows this field
//	 8   1  opcode
//	 9   1  flags: bit 0 reply
//	10   2  check of the length
//	12   4  correlation
//	16   .  payload
//
// A request has a correlation of the client's choice, not 0 and not that of
// another unanswered request; its reply has the same, and the reply bit. What
// the server pushes has correlation 0. An OpError with the reply bit and correlation 0
// answers no request: it says why the server closes the connection. Either side
// may send OpPing, with any correlation, and gets it back with the reply bit.
//
// The checksum is ours since TCP's own is weak and not always computed. It comes too
// late for the length: a flipped bit there promises megabytes, and who waits for them
// takes all that follows for their beginning, pings as well, so that both sides look
// alive and nobody is answered any more. So the length has a check of its own, by
// which it is judged before anything is waited for.

// FrameHeaderBytes is the size of what comes before the payload.
const FrameHeaderBytes = 16

const (
	lengthLeast = FrameHeaderBytes - 4 // of the length field
	flagReply   = 1
)

// Magic is what a client writes before its first frame. It sets clients apart
// from everything else that may knock at the port.
const Magic = "ONCQ"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is one unit on the wire.
type Frame struct {
	Op      Op
	Reply   bool   // it answers the request of the same correlation
	Corr    uint32 // chosen by who asks; 0 in what is pushed
	Payload []byte
}

// FrameError says why bytes are no frame. The connection cannot go on: where
// the next frame starts is not known.
type FrameError struct {
	Code Code
	Text string
}

func (e *FrameError) Error() string { return e.Text }

// AppendFrame appends a whole frame to b.
func AppendFrame(b []byte, op Op, reply bool, corr uint32, payload []byte) []byte {
	start := len(b)
	if need := FrameHeaderBytes + len(payload); cap(b)-start < need {
		// append alone would grow a large buffer in many small steps.
		b = slices.Grow(b, max(need, start))
	}
	b = append(b[:start+FrameHeaderBytes], payload...)
	putHeader(b[start:], op, reply, corr)
	return b
}

// BeginFrame starts a frame whose payload the caller writes into w next. It
// returns where the frame starts, for EndFrame.
func BeginFrame(w *pack.Writer) (start int) {
	var header [FrameHeaderBytes]byte
	start = w.Len()
	w.Raw(header[:])
	return start
}

// EndFrame completes the frame that starts at start and ends where w does.
func EndFrame(w *pack.Writer, start int, op Op, reply bool, corr uint32) {
	putHeader(w.Bytes()[start:], op, reply, corr)
}

// putHeader fills in the header of frame, which has its payload already.
func putHeader(frame []byte, op Op, reply bool, corr uint32) {
	if len(frame) > FrameBytesMax {
		panic(fmt.Sprintf("wire: frame of %d bytes, op %v", len(frame), op))
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	frame[8] = byte(op)
	frame[9] = 0
	if reply {
		frame[9] = flagReply
	}
	binary.BigEndian.PutUint16(frame[10:], lengthCheck(frame))
	binary.BigEndian.PutUint32(frame[12:], corr)
	binary.BigEndian.PutUint32(frame[4:], crc32.Checksum(frame[8:], castagnoli))
}

// lengthCheck is the check of the length that frame begins with: the lower half of its
// crc32c. Up to three flipped bits in length and check are noticed, whichever they are.
func lengthCheck(frame []byte) uint16 { return uint16(crc32.Checksum(frame[:4], castagnoli)) }

const (
	// payloadStep is how much of a payload is made room for at first. A header that
	// promises megabytes is only believed as far as they arrive.
	payloadStep = 64 << 10
	// heldLeast is the largest payload that SetHeld's function is not told of: these are
	// many, and a connection has one of them at a time. It is less than payloadStep, so
	// that headers alone, each with its first step, are counted, and the frames of a
	// usual batch are still read without growing.
	heldLeast = 16 << 10
)

// FrameReader reads frames.
type FrameReader struct {
	r        io.Reader
	bytesMax int
	held     func(n int)
	header   [FrameHeaderBytes]byte
}

// NewFrameReader returns a reader of frames of at most bytesMax bytes. It reads
// in small pieces, so r should be buffered.
func NewFrameReader(r io.Reader, bytesMax int) *FrameReader {
	return &FrameReader{r: r, bytesMax: min(bytesMax, FrameBytesMax)}
}

// SetBytesMax changes the bound, up to FrameBytesMax.
func (f *FrameReader) SetBytesMax(n int) { f.bytesMax = min(n, FrameBytesMax) }

// SetHeld has f called with the bytes that are kept of a payload of which a part has
// arrived, before room is made for more, and with 0 when it is complete or fails. It
// is not called for payloads of up to heldLeast.
func (f *FrameReader) SetHeld(held func(n int)) { f.held = held }

// Next reads one frame. The payload is the caller's. The error is io.EOF when
// the input ends between frames, io.ErrUnexpectedEOF when it ends in one, a
// *FrameError when the bytes are no frame, else what the reader said.
func (f *FrameReader) Next() (Frame, error) {
	if _, err := io.ReadFull(f.r, f.header[:]); err != nil {
		return Frame{}, err
	}
	length := binary.BigEndian.Uint32(f.header[:])
	switch {
	case lengthCheck(f.header[:]) != binary.BigEndian.Uint16(f.header[10:]):
		return Frame{}, &FrameError{CodeMalformed, fmt.Sprintf("frame length %d does not go with its check", length)}
	case length < lengthLeast:
		return Frame{}, &FrameError{CodeMalformed, fmt.Sprintf("frame length %d is less than a header", length)}
	case uint64(length)+4 > uint64(f.bytesMax):
		return Frame{}, &FrameError{CodeFrameTooLarge, fmt.Sprintf("frame of %d bytes, at most %d are allowed", uint64(length)+4, f.bytesMax)}
	case f.header[9]&^flagReply != 0:
		return Frame{}, &FrameError{CodeMalformed, fmt.Sprintf("unknown flags %02x in a frame header", f.header[9])}
	}
	payload, err := f.payload(int(length) - lengthLeast)
	if err != nil {
		return Frame{}, err
	}
	sum := crc32.Update(crc32.Checksum(f.header[8:], castagnoli), castagnoli, payload)
	if want := binary.BigEndian.Uint32(f.header[4:]); sum != want {
		return Frame{}, &FrameError{CodeMalformed, fmt.Sprintf("frame checksum is %08x, should be %08x", sum, want)}
	}
	return Frame{
		Op:      Op(f.header[8]),
		Reply:   f.header[9]&flagReply != 0,
		Corr:    binary.BigEndian.Uint32(f.header[12:]),
		Payload: payload,
	}, nil
}

func (f *FrameReader) payload(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	held := f.held
	if held == nil || n <= heldLeast {
		held = func(int) {}
	}
	defer held(0)
	step := min(n, payloadStep)
	held(step)
	b := make([]byte, step)
	for have := 0; ; {
		if _, err := io.ReadFull(f.r, b[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		have = len(b)
		if have == n {
			return b, nil
		}
		// Twice, so that somebody who stops sending has at most twice what it sent. Four
		// times would copy less, which only frames of a mebibyte and more notice.
		step = min(n, 2*have)
		held(have + step) // both are there for a moment
		grown := make([]byte, step)
		copy(grown, b)
		b = grown
		held(step)
	}
}
