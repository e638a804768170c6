package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// ErrMalformed is what every error of a Reader wraps: the bytes are not what
// the decoder expected. The same bytes will never decode.
var ErrMalformed = errors.New("malformed")

// nestingMax bounds how deep arrays may be nested in what Raw passes over. The
// deepest message of ours has seven levels.
const nestingMax = 16

// Reader reads msgpack from a byte slice. Its first error sticks: after it
// every method returns a zero value, so a decoder may check once, at the end.
// The zero value reads nothing.
type Reader struct {
	// b is what has not been read yet; nil after an error, so that the read
	// paths need no check of err.
	b    []byte
	size int // of the whole input
	err  error
}

// NewReader returns a reader of b.
func NewReader(b []byte) *Reader {
	return &Reader{b: b, size: len(b)}
}

// Reset starts again with b.
func (r *Reader) Reset(b []byte) { *r = Reader{b: b, size: len(b)} }

// Err returns the first error. It wraps ErrMalformed and names the place.
func (r *Reader) Err() error { return r.err }

// Remaining is the number of bytes not yet read.
func (r *Reader) Remaining() int { return len(r.b) }

// Done returns the first error, or an error when bytes remain.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) > 0 {
		r.Failf("%d bytes too many", len(r.b))
	}
	return r.err
}

// Failf makes the reader fail as malformed at the present place; decoders
// report with it what the format alone does not forbid.
func (r *Reader) Failf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
}

func (r *Reader) fail(reason string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w at byte %d of %d: %s", ErrMalformed, r.size-len(r.b), r.size, reason)
	}
	r.b = nil
}

const (
	reasonEnd      = "input ends early"
	reasonRange    = "integer out of range"
	reasonNoUint   = "expected an unsigned integer"
	reasonNoInt    = "expected an integer"
	reasonNoBool   = "expected a boolean"
	reasonNoStr    = "expected a string"
	reasonNoBin    = "expected bytes"
	reasonNoArray  = "expected an array"
	reasonTooLong  = "longer than allowed"
	reasonBeyond   = "length goes beyond the input"
	reasonArrayLen = "array has another length than expected"
	reasonBinLen   = "bytes have another length than expected"
	reasonType     = "a type that is not used here"
	reasonNesting  = "nested too deep"
)

// Array reads the start of an array and returns its length, which is at most
// maxLen and at most the bytes that remain.
func (r *Reader) Array(maxLen int) int {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return 0
	}
	c := r.b[0]
	var n uint64
	var head int
	switch {
	case c&0xf0 == msgpcode.FixedArrayLow:
		n, head = uint64(c&0x0f), 1
	case c == msgpcode.Array16:
		head = 3
	case c == msgpcode.Array32:
		head = 5
	default:
		r.fail(reasonNoArray)
		return 0
	}
	if head > 1 {
		var ok bool
		if n, ok = r.number(head); !ok {
			return 0
		}
	}
	switch {
	case n > uint64(len(r.b)-head):
		r.fail(reasonBeyond)
		return 0
	case maxLen < 0 || n > uint64(maxLen):
		r.fail(reasonTooLong)
		return 0
	}
	r.b = r.b[head:]
	return int(n)
}

// ArrayExact reads the start of an array of n elements.
func (r *Reader) ArrayExact(n int) {
	if got := r.Array(math.MaxInt); got != n && r.err == nil {
		r.fail(reasonArrayLen)
	}
}

// number returns the big endian number that follows the code and ends the head
// of head bytes.
func (r *Reader) number(head int) (uint64, bool) {
	if len(r.b) < head {
		r.fail(reasonEnd)
		return 0, false
	}
	switch head {
	case 2:
		return uint64(r.b[1]), true
	case 3:
		return uint64(binary.BigEndian.Uint16(r.b[1:])), true
	case 5:
		return uint64(binary.BigEndian.Uint32(r.b[1:])), true
	default:
		return binary.BigEndian.Uint64(r.b[1:]), true
	}
}

// Uint reads an unsigned integer of any width.
func (r *Reader) Uint() uint64 {
	if len(r.b) > 0 && r.b[0] <= math.MaxInt8 {
		n := uint64(r.b[0])
		r.b = r.b[1:]
		return n
	}
	n, negative := r.integer(reasonNoUint)
	if negative {
		r.fail(reasonRange)
		return 0
	}
	return n
}

// Uint32 reads an unsigned integer that fits 32 bits.
func (r *Reader) Uint32() uint32 { return uint32(r.uintMax(math.MaxUint32)) }

// Uint16 reads an unsigned integer that fits 16 bits.
func (r *Reader) Uint16() uint16 { return uint16(r.uintMax(math.MaxUint16)) }

// Uint8 reads an unsigned integer that fits 8 bits.
func (r *Reader) Uint8() uint8 { return uint8(r.uintMax(math.MaxUint8)) }

func (r *Reader) uintMax(most uint64) uint64 {
	n := r.Uint()
	if n > most {
		r.fail(reasonRange)
		return 0
	}
	return n
}

// Int reads a signed integer of any width.
func (r *Reader) Int() int64 {
	n, negative := r.integer(reasonNoInt)
	if !negative && n > math.MaxInt64 {
		r.fail(reasonRange)
		return 0
	}
	return int64(n)
}

// integer reads any integer. A negative one comes in two's complement.
func (r *Reader) integer(reason string) (n uint64, negative bool) {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return 0, false
	}
	c := r.b[0]
	var head int
	var signed bool
	switch c {
	case msgpcode.Uint8:
		head = 2
	case msgpcode.Uint16:
		head = 3
	case msgpcode.Uint32:
		head = 5
	case msgpcode.Uint64:
		head = 9
	case msgpcode.Int8:
		head, signed = 2, true
	case msgpcode.Int16:
		head, signed = 3, true
	case msgpcode.Int32:
		head, signed = 5, true
	case msgpcode.Int64:
		head, signed = 9, true
	default:
		switch {
		case c <= msgpcode.PosFixedNumHigh:
			r.b = r.b[1:]
			return uint64(c), false
		case c >= msgpcode.NegFixedNumLow:
			r.b = r.b[1:]
			return uint64(int64(int8(c))), true
		}
		r.fail(reason)
		return 0, false
	}
	n, ok := r.number(head)
	if !ok {
		return 0, false
	}
	r.b = r.b[head:]
	if signed {
		shift := 64 - 8*(head-1)
		s := int64(n<<shift) >> shift
		return uint64(s), s < 0
	}
	return n, false
}

// Bool reads a boolean.
func (r *Reader) Bool() bool {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return false
	}
	switch r.b[0] {
	case msgpcode.True:
		r.b = r.b[1:]
		return true
	case msgpcode.False:
		r.b = r.b[1:]
		return false
	}
	r.fail(reasonNoBool)
	return false
}

// Str reads a string of at most maxLen bytes.
func (r *Reader) Str(maxLen int) string { return string(r.StrBytes(maxLen)) }

// StrBytes reads a string of at most maxLen bytes and returns a view into the
// input.
func (r *Reader) StrBytes(maxLen int) []byte {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return nil
	}
	c := r.b[0]
	switch {
	case c&0xe0 == msgpcode.FixedStrLow:
		return r.take(1, uint64(c&0x1f), maxLen)
	case c == msgpcode.Str8:
		return r.takeLong(2, maxLen)
	case c == msgpcode.Str16:
		return r.takeLong(3, maxLen)
	case c == msgpcode.Str32:
		return r.takeLong(5, maxLen)
	}
	r.fail(reasonNoStr)
	return nil
}

// Bin reads at most maxLen bytes and returns a view into the input; it is not
// nil unless the reader failed.
func (r *Reader) Bin(maxLen int) []byte {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return nil
	}
	switch r.b[0] {
	case msgpcode.Bin8:
		return r.takeLong(2, maxLen)
	case msgpcode.Bin16:
		return r.takeLong(3, maxLen)
	case msgpcode.Bin32:
		return r.takeLong(5, maxLen)
	}
	r.fail(reasonNoBin)
	return nil
}

// BinExact reads exactly n bytes into dst, which has that length: an id.
func (r *Reader) BinExact(dst []byte) {
	p := r.Bin(len(dst))
	if len(p) != len(dst) {
		r.fail(reasonBinLen)
		return
	}
	copy(dst, p)
}

func (r *Reader) takeLong(head, maxLen int) []byte {
	n, ok := r.number(head)
	if !ok {
		return nil
	}
	return r.take(head, n, maxLen)
}

// take passes head bytes and returns the n after them, with no capacity beyond,
// so that appending to the view cannot write into the input.
func (r *Reader) take(head int, n uint64, maxLen int) []byte {
	switch {
	case n > uint64(len(r.b)-head):
		r.fail(reasonBeyond)
		return nil
	case maxLen < 0 || n > uint64(maxLen):
		r.fail(reasonTooLong)
		return nil
	}
	end := head + int(n)
	p := r.b[head:end:end]
	r.b = r.b[end:]
	return p
}

// Raw passes over exactly one element, with all that it contains, and returns
// its encoding as a view into the input.
func (r *Reader) Raw() []byte {
	start := r.b
	// left holds, for each open array, how many elements are still to come.
	var left [nestingMax]int
	depth := 0
	for {
		n, isArray := r.skip()
		if r.err != nil {
			return nil
		}
		if isArray && n > 0 {
			if depth == nestingMax {
				r.fail(reasonNesting)
				return nil
			}
			left[depth] = n
			depth++
			continue
		}
		for depth > 0 {
			left[depth-1]--
			if left[depth-1] > 0 {
				break
			}
			depth--
		}
		if depth == 0 {
			end := len(start) - len(r.b)
			return start[:end:end]
		}
	}
}

// skip passes over one element that is no array, or the start of an array.
func (r *Reader) skip() (n int, isArray bool) {
	if len(r.b) == 0 {
		r.fail(reasonEnd)
		return 0, false
	}
	switch c := r.b[0]; {
	case c <= msgpcode.PosFixedNumHigh, c >= msgpcode.NegFixedNumLow,
		c >= msgpcode.Uint8 && c <= msgpcode.Int64:
		r.integer(reasonType)
	case c&0xf0 == msgpcode.FixedArrayLow, c == msgpcode.Array16, c == msgpcode.Array32:
		return r.Array(math.MaxInt), true
	case c&0xe0 == msgpcode.FixedStrLow, c == msgpcode.Str8, c == msgpcode.Str16, c == msgpcode.Str32:
		r.StrBytes(math.MaxInt)
	case c == msgpcode.Bin8, c == msgpcode.Bin16, c == msgpcode.Bin32:
		r.Bin(math.MaxInt)
	case c == msgpcode.True, c == msgpcode.False:
		r.b = r.b[1:]
	default:
		r.fail(reasonType)
	}
	return 0, false
}
