package pack

import (
	"encoding/binary"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Writer appends msgpack to a buffer that it keeps. The zero value is ready to
// use. It never fails; lengths above 32 bits are a broken invariant.
type Writer struct {
	b []byte
}

// NewWriter returns a writer that appends to b.
func NewWriter(b []byte) *Writer {
	return &Writer{b: b}
}

// Bytes returns all that was written since the last Reset. It is valid until
// the next write or Reset.
func (w *Writer) Bytes() []byte { return w.b }

// Len is the number of bytes written since the last Reset.
func (w *Writer) Len() int { return len(w.b) }

// Reset forgets what was written and keeps the buffer.
func (w *Writer) Reset() { w.b = w.b[:0] }

// Take returns what was written and gives the buffer away: the next write
// starts another one.
func (w *Writer) Take() []byte {
	b := w.b
	w.b = nil
	return b
}

// Truncate forgets everything after the first n bytes.
func (w *Writer) Truncate(n int) { w.b = w.b[:n] }

// Grow makes room for n more bytes.
func (w *Writer) Grow(n int) {
	if cap(w.b)-len(w.b) >= n {
		return
	}
	b := make([]byte, len(w.b), max(2*cap(w.b), len(w.b)+n))
	copy(b, w.b)
	w.b = b
}

// Array starts an array of n elements, which the caller writes next.
func (w *Writer) Array(n int) {
	switch l := length(n); {
	case l < 16:
		w.b = append(w.b, msgpcode.FixedArrayLow|byte(l))
	case l <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, msgpcode.Array16), uint16(l))
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, msgpcode.Array32), l)
	}
}

// Uint writes an unsigned integer in its shortest form.
func (w *Writer) Uint(n uint64) {
	switch {
	case n <= math.MaxInt8:
		w.b = append(w.b, byte(n))
	case n <= math.MaxUint8:
		w.b = append(w.b, msgpcode.Uint8, byte(n))
	case n <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, msgpcode.Uint16), uint16(n))
	case n <= math.MaxUint32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, msgpcode.Uint32), uint32(n))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, msgpcode.Uint64), n)
	}
}

// Int writes a signed integer in its shortest form.
func (w *Writer) Int(n int64) {
	switch {
	case n >= 0:
		w.Uint(uint64(n))
	case n >= -32:
		w.b = append(w.b, byte(n))
	case n >= math.MinInt8:
		w.b = append(w.b, msgpcode.Int8, byte(n))
	case n >= math.MinInt16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, msgpcode.Int16), uint16(n))
	case n >= math.MinInt32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, msgpcode.Int32), uint32(n))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, msgpcode.Int64), uint64(n))
	}
}

// Bool writes a boolean.
func (w *Writer) Bool(v bool) {
	if v {
		w.b = append(w.b, msgpcode.True)
	} else {
		w.b = append(w.b, msgpcode.False)
	}
}

// Str writes a string.
func (w *Writer) Str(s string) {
	switch l := length(len(s)); {
	case l < 32:
		w.b = append(w.b, msgpcode.FixedStrLow|byte(l))
	case l <= math.MaxUint8:
		w.b = append(w.b, msgpcode.Str8, byte(l))
	case l <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, msgpcode.Str16), uint16(l))
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, msgpcode.Str32), l)
	}
	w.b = append(w.b, s...)
}

// Bin writes bytes. Nil is written as no bytes.
func (w *Writer) Bin(p []byte) {
	switch l := length(len(p)); {
	case l <= math.MaxUint8:
		w.b = append(w.b, msgpcode.Bin8, byte(l))
	case l <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, msgpcode.Bin16), uint16(l))
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, msgpcode.Bin32), l)
	}
	w.b = append(w.b, p...)
}

// Raw writes bytes that are encoded already (or are no msgpack at all, as a
// header that comes before it).
func (w *Writer) Raw(p []byte) { w.b = append(w.b, p...) }

func length(n int) uint32 {
	if n < 0 || uint64(n) > math.MaxUint32 {
		panic("pack: length does not fit 32 bits")
	}
	return uint32(n)
}
