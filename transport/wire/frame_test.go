package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"onceq/transport/wire/pack"
)

func TestFrame_GoldenBytes(t *testing.T) {
	got := hex.EncodeToString(AppendFrame(nil, OpPublish, true, 0x01020304, []byte{0x90}))
	if want := "0000000d" + "b425fa6f" + "12" + "01" + "0714" + "01020304" + "90"; got != want {
		t.Errorf("frame is %s, was %s", got, want)
	}
}

func TestFrame_ReadsWhatWasWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var stream []byte
	var want []Frame
	w := pack.NewWriter(nil)
	for i, n := range []int{0, 1, 100, payloadStep - 1, payloadStep, payloadStep + 1, 4*payloadStep + 1, PayloadBytesMax, 3} {
		f := Frame{Op: Op(rng.IntN(256)), Reply: i%2 == 0, Corr: rng.Uint32()}
		if n > 0 {
			f.Payload = bytes.Repeat([]byte{byte(i)}, n)
		}
		want = append(want, f)
		stream = AppendFrame(stream, f.Op, f.Reply, f.Corr, f.Payload)
		start := BeginFrame(w)
		w.Raw(f.Payload)
		EndFrame(w, start, f.Op, f.Reply, f.Corr)
	}
	if !bytes.Equal(w.Bytes(), stream) {
		t.Fatal("frames written in place differ")
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(stream),
		"half":  iotest.HalfReader(bytes.NewReader(stream)),
	} {
		frames := NewFrameReader(r, FrameBytesMax)
		for i, f := range want {
			got, err := frames.Next()
			if err != nil || got.Op != f.Op || got.Reply != f.Reply || got.Corr != f.Corr || !bytes.Equal(got.Payload, f.Payload) {
				t.Fatalf("%s, frame %d: %v %v %d, %d bytes, %v", name, i, got.Op, got.Reply, got.Corr, len(got.Payload), err)
			}
		}
		if _, err := frames.Next(); err != io.EOF {
			t.Fatalf("%s, at the end: %v", name, err)
		}
	}
}

func TestFrame_CutAnywhere_EndsUnexpectedly(t *testing.T) {
	whole := AppendFrame(nil, OpPublish, false, 7, make([]byte, 100))
	for n := 1; n < len(whole); n++ {
		if _, err := NewFrameReader(bytes.NewReader(whole[:n]), FrameBytesMax).Next(); err != io.ErrUnexpectedEOF {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestFrame_AnyFlippedBit_IsSeen(t *testing.T) {
	whole := AppendFrame(nil, OpPublish, true, 7, []byte("payload"))
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		_, err := NewFrameReader(bytes.NewReader(b), FrameBytesMax).Next()
		var bad *FrameError
		if !errors.As(err, &bad) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
}

// TestFrame_DamagedLength_WaitsForNothing: what a damaged length promises may never
// come, and whoever waits for it believes that the other side is alive.
func TestFrame_DamagedLength_WaitsForNothing(t *testing.T) {
	whole := AppendFrame(nil, OpPublish, true, 7, []byte("payload"))
	var bits []int // of the length and of its check
	for bit := range 32 {
		bits = append(bits, bit)
	}
	for bit := range 16 {
		bits = append(bits, 80+bit)
	}
	damaged := func(flips ...int) {
		b := bytes.Clone(whole)
		for _, bit := range flips {
			b[bit/8] ^= 1 << (bit % 8)
		}
		_, err := NewFrameReader(bytes.NewReader(b[:FrameHeaderBytes]), FrameBytesMax).Next()
		var bad *FrameError
		if !errors.As(err, &bad) {
			t.Fatalf("bits %v: %v", flips, err)
		}
	}
	for i, one := range bits {
		damaged(one)
		for j, two := range bits[i+1:] {
			damaged(one, two)
			for _, three := range bits[i+j+2:] {
				damaged(one, two, three)
			}
		}
	}
}

func TestFrame_Refusals(t *testing.T) {
	header := func(length uint32, flags byte) []byte {
		h := make([]byte, FrameHeaderBytes)
		binary.BigEndian.PutUint32(h, length)
		binary.BigEndian.PutUint16(h[10:], lengthCheck(h))
		h[9] = flags
		return h
	}
	for name, c := range map[string]struct {
		b    []byte
		most int
		code Code
	}{
		"too large":           {header(FrameBytesMax-3, 0), FrameBytesMax, CodeFrameTooLarge},
		"largest length":      {header(1<<32-1, 0), FrameBytesMax, CodeFrameTooLarge},
		"too large for hello": {header(HelloBytesMax-3, 0), HelloBytesMax, CodeFrameTooLarge},
		"less than a header":  {header(11, 0), FrameBytesMax, CodeMalformed},
		"unknown flag":        {header(12, 2), FrameBytesMax, CodeMalformed},
		"HTTP":                {[]byte("GET / HTTP/1.1\r\n\r\n"), FrameBytesMax, CodeMalformed},
	} {
		_, err := NewFrameReader(bytes.NewReader(c.b), c.most).Next()
		var bad *FrameError
		if !errors.As(err, &bad) || bad.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	at := AppendFrame(nil, OpHello, false, 1, make([]byte, HelloBytesMax-FrameHeaderBytes))
	if _, err := NewFrameReader(bytes.NewReader(at), HelloBytesMax).Next(); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

// TestFrameReader_BelievesLengthsAsTheyArrive sends headers that promise the
// largest frame, with little after them.
func TestFrameReader_BelievesLengthsAsTheyArrive(t *testing.T) {
	b := AppendFrame(nil, OpPublish, false, 1, make([]byte, PayloadBytesMax))[:FrameHeaderBytes+1000]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := NewFrameReader(bytes.NewReader(b), FrameBytesMax).Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*payloadStep {
		t.Fatalf("%d bytes allocated for 1000 that came", grown)
	}
}

// TestFrameReader_TellsWhatItHolds: never less than there is, at most twice what has come
// and the first step (three times while it grows), and nothing in the end.
func TestFrameReader_TellsWhatItHolds(t *testing.T) {
	for _, c := range []struct{ promised, come int }{
		{PayloadBytesMax, 1<<20 + 64},
		{PayloadBytesMax, PayloadBytesMax},
		{payloadStep + 1, payloadStep + 1},
		{payloadStep, 100},
		{heldLeast + 1, heldLeast + 1},
		{heldLeast, heldLeast}, // not told
		{0, 0},
	} {
		b := AppendFrame(nil, OpPublish, false, 1, make([]byte, c.promised))[:FrameHeaderBytes+c.come]
		var told []int
		come := bytes.NewReader(b)
		frames := NewFrameReader(come, FrameBytesMax)
		frames.SetHeld(func(n int) {
			told = append(told, n)
			if sofar := len(b) - FrameHeaderBytes - come.Len(); n > 0 && n > max(payloadStep, 3*sofar) {
				t.Errorf("%d of %d bytes: %d are held when %d have come", c.come, c.promised, n, sofar)
			}
		})
		if _, err := frames.Next(); (err == nil) != (c.come == c.promised) {
			t.Fatal(err)
		}
		if c.promised <= heldLeast {
			if len(told) > 0 {
				t.Errorf("%d bytes: told %v", c.promised, told)
			}
			continue
		}
		last := len(told) - 1
		if last < 1 || told[last] != 0 || told[last-1] < c.come || told[last-1] > max(payloadStep, 2*c.come) {
			t.Errorf("%d of %d bytes: told %v", c.come, c.promised, told)
		}
		if c.come > payloadStep && slices.Max(told) <= told[last-1] {
			t.Errorf("%d of %d bytes: not told before it grew: %v", c.come, c.promised, told)
		}
	}
}

func FuzzFrameReader(f *testing.F) {
	f.Add(AppendFrame(nil, OpPing, true, 9, nil))
	f.Add(AppendFrame(AppendFrame(nil, OpPublish, false, 1, []byte("one")), OpSettle, false, 2, []byte("two")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := NewFrameReader(bytes.NewReader(b), FrameBytesMax)
		var again []byte
		for {
			fr, err := frames.Next()
			if err != nil {
				break
			}
			again = AppendFrame(again, fr.Op, fr.Reply, fr.Corr, fr.Payload)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("% x was read as % x", b, again)
		}
	})
}
