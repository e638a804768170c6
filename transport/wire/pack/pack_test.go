package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/vmihailenco/msgpack/v5"
)

// edges are the integers around each change of width.
func edges() []uint64 {
	var out []uint64
	for shift := range 64 {
		p := uint64(1) << shift
		out = append(out, p-1, p, p+1)
	}
	return append(out, math.MaxUint64, math.MaxUint64-1)
}

var lengths = []int{0, 1, 14, 15, 16, 17, 30, 31, 32, 33, 254, 255, 256, 257, 65534, 65535, 65536, 65537}

func library(t testing.TB, encode func(e *msgpack.Encoder) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(msgpack.NewEncoder(&b)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriter_EqualsTheLibrary(t *testing.T) {
	var w Writer
	check := func(what string, n any, want []byte) {
		t.Helper()
		if !bytes.Equal(w.Bytes(), want) {
			t.Fatalf("%s of %v: % x, library % x", what, n, w.Bytes(), want)
		}
		w.Reset()
	}
	for _, n := range edges() {
		w.Uint(n)
		check("uint", n, library(t, func(e *msgpack.Encoder) error { return e.EncodeUint(n) }))
		for _, s := range []int64{int64(n), -int64(n)} {
			w.Int(s)
			check("int", s, library(t, func(e *msgpack.Encoder) error { return e.EncodeInt(s) }))
		}
	}
	for _, n := range lengths {
		p := bytes.Repeat([]byte{0xc1}, n)
		w.Bin(p)
		check("bin", n, library(t, func(e *msgpack.Encoder) error { return e.EncodeBytes(p) }))
		w.Str(string(p))
		check("str", n, library(t, func(e *msgpack.Encoder) error { return e.EncodeString(string(p)) }))
		w.Array(n)
		check("array", n, library(t, func(e *msgpack.Encoder) error { return e.EncodeArrayLen(n) }))
	}
	for _, v := range []bool{true, false} {
		w.Bool(v)
		check("bool", v, library(t, func(e *msgpack.Encoder) error { return e.EncodeBool(v) }))
	}
}

// widths returns n encoded in every width the format has for it.
func widths(t *testing.T, n int64) [][]byte {
	enc := []func(e *msgpack.Encoder) error{
		func(e *msgpack.Encoder) error { return e.EncodeInt(n) },
		func(e *msgpack.Encoder) error { return e.EncodeInt64(n) },
	}
	if n >= math.MinInt32 && n <= math.MaxInt32 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeInt32(int32(n)) })
	}
	if n >= math.MinInt16 && n <= math.MaxInt16 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeInt16(int16(n)) })
	}
	if n >= math.MinInt8 && n <= math.MaxInt8 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeInt8(int8(n)) })
	}
	if n >= 0 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeUint64(uint64(n)) })
	}
	if n >= 0 && n <= math.MaxUint32 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeUint32(uint32(n)) })
	}
	if n >= 0 && n <= math.MaxUint16 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeUint16(uint16(n)) })
	}
	if n >= 0 && n <= math.MaxUint8 {
		enc = append(enc, func(e *msgpack.Encoder) error { return e.EncodeUint8(uint8(n)) })
	}
	var out [][]byte
	for _, f := range enc {
		out = append(out, library(t, f))
	}
	return out
}

func TestReader_ReadsIntegersOfAnyWidth(t *testing.T) {
	for _, u := range edges() {
		for _, n := range []int64{int64(u), -int64(u)} {
			for _, b := range widths(t, n) {
				r := NewReader(b)
				if got := r.Int(); got != n || r.Done() != nil {
					t.Fatalf("int % x: %d, %v; want %d", b, got, r.Err(), n)
				}
				r.Reset(b)
				got := r.Uint()
				if n >= 0 && (got != uint64(n) || r.Done() != nil) {
					t.Fatalf("uint % x: %d, %v; want %d", b, got, r.Err(), n)
				}
				if n < 0 && !errors.Is(r.Err(), ErrMalformed) {
					t.Fatalf("uint % x: %d, %v; want malformed", b, got, r.Err())
				}
				r.Reset(b)
				if raw := r.Raw(); !bytes.Equal(raw, b) || r.Done() != nil {
					t.Fatalf("raw % x: % x, %v", b, raw, r.Err())
				}
			}
		}
		b := library(t, func(e *msgpack.Encoder) error { return e.EncodeUint(u) })
		r := NewReader(b)
		if got := r.Uint(); got != u || r.Done() != nil {
			t.Fatalf("uint % x: %d, %v; want %d", b, got, r.Err(), u)
		}
		for most, read := range map[uint64]func() uint64{
			math.MaxUint32: func() uint64 { return uint64(r.Uint32()) },
			math.MaxUint16: func() uint64 { return uint64(r.Uint16()) },
			math.MaxUint8:  func() uint64 { return uint64(r.Uint8()) },
			math.MaxInt64:  func() uint64 { return uint64(r.Int()) },
		} {
			r.Reset(b)
			got := read()
			if u <= most && (got != u || r.Err() != nil) {
				t.Fatalf("%d up to %d: %d, %v", u, most, got, r.Err())
			}
			if u > most && (got != 0 || !errors.Is(r.Err(), ErrMalformed)) {
				t.Fatalf("%d up to %d: %d, %v; want malformed", u, most, got, r.Err())
			}
		}
	}
}

func TestReader_ReadsWhatTheWriterWrote(t *testing.T) {
	for _, n := range lengths {
		p := bytes.Repeat([]byte{0x93}, n)
		var w Writer
		w.Array(4)
		w.Bin(p)
		w.Str(string(p))
		w.Bool(true)
		w.Array(n)
		for range n {
			w.Bool(false)
		}
		b := bytes.Clone(w.Bytes())

		r := NewReader(b)
		r.ArrayExact(4)
		bin := r.Bin(n)
		str := r.Str(n)
		yes := r.Bool()
		got := r.Array(n)
		for range got {
			if r.Bool() {
				t.Fatal("true in place of false")
			}
		}
		if err := r.Done(); err != nil || !bytes.Equal(bin, p) || str != string(p) || !yes || got != n {
			t.Fatalf("length %d: %v, bin %d, str %d, bool %v, array %d", n, err, len(bin), len(str), yes, got)
		}
		if n > 0 && &bin[0] != &b[len(b)-len(w.Bytes())+headOf(n)+1] {
			t.Fatalf("length %d: bytes were copied", n)
		}
		if cap(bin) != len(bin) {
			t.Fatalf("length %d: an append to the view would write into the input", n)
		}
		r.Reset(b)
		if raw := r.Raw(); !bytes.Equal(raw, b) || r.Done() != nil {
			t.Fatalf("raw: %d of %d bytes, %v", len(raw), len(b), r.Err())
		}
		if n == 0 {
			continue
		}
		r.Reset(b)
		r.ArrayExact(4)
		if r.Bin(n-1) != nil || !errors.Is(r.Err(), ErrMalformed) {
			t.Fatalf("length %d was taken where at most %d are allowed", n, n-1)
		}
	}
}

func headOf(n int) int {
	switch {
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	}
	return 5
}

func TestReader_TruncatedAnywhere_IsMalformed(t *testing.T) {
	var w Writer
	w.Array(9)
	w.Uint(math.MaxUint64)
	w.Int(math.MinInt64)
	w.Uint(300)
	w.Str(strings.Repeat("s", 300))
	w.Str("short")
	w.Bin(bytes.Repeat([]byte("b"), 70_000))
	w.Bool(true)
	w.Array(1)
	w.Bin(nil)
	w.Uint(5)
	read := func(b []byte) error {
		r := NewReader(b)
		r.ArrayExact(9)
		r.Uint()
		r.Int()
		r.Uint16()
		r.Str(1000)
		r.Str(1000)
		r.Bin(100_000)
		r.Bool()
		r.ArrayExact(1)
		r.Bin(0)
		r.Uint8()
		return r.Done()
	}
	whole := w.Bytes()
	if err := read(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if n > 400 && n < len(whole)-400 && n%997 != 0 {
			continue // inside the long bytes every cut is the same
		}
		if err := read(whole[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		r := NewReader(whole[:n])
		if r.Raw(); !errors.Is(r.Err(), ErrMalformed) {
			t.Fatalf("raw, cut at %d: %v", n, r.Err())
		}
	}
	if err := read(append(bytes.Clone(whole), 0)); !errors.Is(err, ErrMalformed) {
		t.Fatalf("one byte too many: %v", err)
	}
}

// TestReader_Bombs reads inputs whose lengths promise gigabytes, and one that
// nests without end. They must cost next to nothing.
func TestReader_Bombs(t *testing.T) {
	bombs := map[string][]byte{
		"array32":       {0xdd, 0xff, 0xff, 0xff, 0xff},
		"array16":       {0xdc, 0xff, 0xff},
		"str32":         {0xdb, 0xff, 0xff, 0xff, 0xff},
		"bin32":         {0xc6, 0xff, 0xff, 0xff, 0xff},
		"map32":         {0xdf, 0xff, 0xff, 0xff, 0xff},
		"ext32":         {0xc9, 0xff, 0xff, 0xff, 0xff, 0},
		"fixext":        {0xd8, 0},
		"nil":           {0xc0},
		"never used":    {0xc1},
		"float":         {0xca, 0, 0, 0, 0},
		"empty":         {},
		"nested":        bytes.Repeat([]byte{0x91}, 8<<20),
		"nested closed": append(bytes.Repeat([]byte{0x91}, 8<<20), 0),
		"nested wide":   bytes.Repeat([]byte{0xdc, 0, 2}, 1<<20),
	}
	for name, b := range bombs {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		reads := map[string]func(r *Reader){
			"raw": func(r *Reader) { r.Raw() },
			"str": func(r *Reader) { r.Str(math.MaxInt) },
			"bin": func(r *Reader) { r.Bin(math.MaxInt) },
			"array": func(r *Reader) {
				for r.Err() == nil {
					_ = make([]uint64, r.Array(math.MaxInt)) // what a decoder would do
					if len(b) > 1<<20 {
						r.Failf("nesting is for the decoder to know")
					}
				}
			},
			"uint": func(r *Reader) { r.Uint() },
			"int":  func(r *Reader) { r.Int() },
			"bool": func(r *Reader) { r.Bool() },
		}
		for verb, read := range reads {
			r := NewReader(b)
			read(r)
			if !errors.Is(r.Err(), ErrMalformed) {
				t.Errorf("%s read as %s: %v", name, verb, r.Err())
			}
			if r.Uint() != 0 || r.Str(9) != "" || r.Bin(9) != nil || r.Array(9) != 0 || r.Bool() || r.Raw() != nil {
				t.Errorf("%s read as %s: the error does not stick", name, verb)
			}
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, grown)
		}
	}
}

func TestReader_RawNesting_AtItsBoundAndOnePast(t *testing.T) {
	at := append(bytes.Repeat([]byte{0x91}, nestingMax), 7)
	r := NewReader(at)
	if raw := r.Raw(); len(raw) != len(at) || r.Done() != nil {
		t.Fatalf("at the bound: %v", r.Err())
	}
	r.Reset(append([]byte{0x91}, at...))
	if r.Raw(); !errors.Is(r.Err(), ErrMalformed) {
		t.Fatalf("one past the bound: %v", r.Err())
	}
	// An empty array has nothing in it, so it does not nest.
	r.Reset(append(bytes.Repeat([]byte{0x91}, nestingMax), 0x90))
	if r.Raw(); r.Done() != nil {
		t.Fatalf("empty array at the bound: %v", r.Err())
	}
}

func TestReader_BinExact(t *testing.T) {
	var w Writer
	w.Bin([]byte("0123456789abcdef"))
	var id [16]byte
	r := NewReader(w.Bytes())
	if r.BinExact(id[:]); r.Done() != nil || string(id[:]) != "0123456789abcdef" {
		t.Fatalf("%q, %v", id, r.Err())
	}
	for _, n := range []int{15, 17} {
		r.Reset(w.Bytes())
		if r.BinExact(make([]byte, n)); !errors.Is(r.Err(), ErrMalformed) {
			t.Fatalf("16 bytes read as %d: %v", n, r.Err())
		}
	}
}

func TestReader_ErrorNamesThePlace(t *testing.T) {
	r := NewReader([]byte{0x92, 0x05, 0xc0})
	r.ArrayExact(2)
	r.Uint()
	r.Uint()
	if got := r.Err().Error(); got != "malformed at byte 2 of 3: expected an unsigned integer" {
		t.Fatal(got)
	}
}

func TestPrimitives_DoNotAllocate(t *testing.T) {
	var w Writer
	body := bytes.Repeat([]byte("b"), 300)
	var s Sum
	var sink uint64
	n := testing.AllocsPerRun(100, func() {
		w.Reset()
		w.Array(5)
		w.Uint(1 << 40)
		w.Int(-7)
		w.Str("orders")
		w.Bin(body)
		w.Bool(true)
		var r Reader
		r.Reset(w.Bytes())
		r.ArrayExact(5)
		sink += r.Uint() + uint64(r.Int()) + uint64(len(r.StrBytes(255))) + uint64(len(r.Bin(1<<20)))
		r.Bool()
		s.Reset()
		s.Uint(sink)
		s.Field(body)
		s.FieldString("orders")
		sink += s.Sum64()
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestSum_KnownValues holds the checksum to what has been written to logs and
// snapshots: xxhash64 with seed 0.
func TestSum_KnownValues(t *testing.T) {
	var s Sum
	if got := s.Sum64(); got != 0xef46db3751d8e999 {
		t.Fatalf("of nothing: %#x", got)
	}
	s.FieldString("orders")
	s.Uint(1)
	s.Field([]byte("body"))
	long := s.Sum64()
	if want := xxhash.Sum64String("\x06\x00\x00\x00\x00\x00\x00\x00orders\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00body"); long != want || want != 0xdcadabfeb5eb0848 {
		t.Fatalf("of three fields: %#x, not %#x", long, want)
	}
	s.Reset()
	s.Field([]byte("orders"))
	s.Uint(1)
	s.FieldString("body")
	if s.Sum64() != long {
		t.Fatal("a string and its bytes differ")
	}
	s.Reset()
	s.FieldString("order")
	s.Uint(1)
	s.FieldString("sbody")
	if s.Sum64() == long {
		t.Fatal("moving a byte from one field to the next was not seen")
	}
	var zero, reset Sum
	reset.Reset()
	zero.Uint(9)
	reset.Uint(9)
	if zero.Sum64() != reset.Sum64() {
		t.Fatal("the zero value differs from one that was reset")
	}
}

// TestSum_EqualsOneHashOfAllBytes adds fields of every length around the size
// of what is gathered, and asks in between.
func TestSum_EqualsOneHashOfAllBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s Sum
		var all []byte
		for range 1 + rng.IntN(30) {
			switch rng.IntN(4) {
			case 0:
				n := rng.Uint64()
				s.Uint(n)
				all = binary.LittleEndian.AppendUint64(all, n)
			case 1:
				if got, want := s.Sum64(), xxhash.Sum64(all); got != want {
					t.Fatalf("%#x, want %#x", got, want)
				}
			default:
				p := bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(200))
				if rng.IntN(2) == 0 {
					s.Field(p)
				} else {
					s.FieldString(string(p))
				}
				all = append(binary.LittleEndian.AppendUint64(all, uint64(len(p))), p...)
			}
		}
		if got, want := s.Sum64(), xxhash.Sum64(all); got != want {
			t.Fatalf("%#x, want %#x", got, want)
		}
	}
}

func TestWriter_TakeGrowTruncate(t *testing.T) {
	var w Writer
	w.Grow(100)
	w.Str("first")
	first := w.Take()
	w.Str("other")
	w.Uint(1)
	w.Truncate(6)
	if string(first) != "\xa5first" || string(w.Bytes()) != "\xa5other" || w.Len() != 6 {
		t.Fatalf("%q, %q", first, w.Bytes())
	}
	w.Grow(1000)
	if string(w.Bytes()) != "\xa5other" || cap(w.Bytes()) < 1006 {
		t.Fatalf("%q, room for %d", w.Bytes(), cap(w.Bytes()))
	}
}

// FuzzReader holds the reader to the library: what Raw passes over the library
// can skip, with the same end. And whatever comes, nothing panics.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x92, 0x01, 0xc4, 0x01, 0x41})
	f.Add(bytes.Repeat([]byte{0x91}, 40))
	f.Add(binary.BigEndian.AppendUint64([]byte{0xd3}, math.MaxUint64))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		raw := r.Raw()
		if r.Err() == nil {
			in := bytes.NewReader(b)
			if err := msgpack.NewDecoder(in).Skip(); err != nil || len(b)-in.Len() != len(raw) {
				t.Fatalf("% x: raw took %d bytes, the library %d, %v", b, len(raw), len(b)-in.Len(), err)
			}
		}
		for _, read := range []func(){
			func() { r.Uint() }, func() { r.Int() }, func() { r.Bool() }, func() { r.Str(10) },
			func() { r.Bin(10) }, func() { r.Array(10) }, func() { r.Uint8() }, func() { r.Uint16() },
			func() { r.Uint32() }, func() { r.ArrayExact(3) },
		} {
			r.Reset(b)
			for r.Err() == nil && r.Remaining() > 0 {
				before := r.Remaining()
				read()
				if r.Err() == nil && r.Remaining() >= before {
					t.Fatal("a read took nothing")
				}
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var w Writer
	w.Array(6)
	w.Uint(1 << 40)
	w.Uint(3)
	w.Uint(1 << 60)
	w.Bin(bytes.Repeat([]byte("b"), 100))
	w.Int(77)
	w.Bool(true)
	in := w.Bytes()
	b.Run("pack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r Reader
			r.Reset(in)
			r.ArrayExact(6)
			r.Uint()
			r.Uint()
			r.Uint()
			r.Bin(1000)
			r.Int()
			r.Bool()
			if r.Done() != nil {
				b.Fatal(r.Err())
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		src := bytes.NewReader(in)
		d := msgpack.NewDecoder(src)
		for b.Loop() {
			src.Reset(in)
			d.Reset(src)
			_, _ = d.DecodeArrayLen()
			_, _ = d.DecodeUint64()
			_, _ = d.DecodeUint64()
			_, _ = d.DecodeUint64()
			n, _ := d.DecodeBytesLen()
			_, _ = src.Seek(int64(n), 1)
			_, _ = d.DecodeInt64()
			if _, err := d.DecodeBool(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
