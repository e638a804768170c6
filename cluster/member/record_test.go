package member

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// sink is a connection that collects what is written.
type sink struct {
	net.Conn
	buf    bytes.Buffer
	closed bool
}

func (s *sink) Write(p []byte) (int, error) { return s.buf.Write(p) }
func (s *sink) Read(p []byte) (int, error)  { return s.buf.Read(p) }
func (s *sink) Close() error                { s.closed = true; return nil }

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestRecordConn_AnySizes_CarriesTheSameBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := &sink{}
	w := newRecordConn(s)
	var want []byte
	for _, n := range []int{1, 0, 7, recordBytesMax - 1, recordBytesMax, recordBytesMax + 1, 3*recordBytesMax + 5, 200} {
		b := randomBytes(r, n)
		if m, err := w.Write(b); m != n || err != nil {
			t.Fatal(m, err)
		}
		want = append(want, b...)
	}
	rd := newRecordConn(s)
	var got []byte
	for {
		p := make([]byte, 1+r.IntN(2*recordBytesMax))
		n, err := rd.Read(p)
		got = append(got, p[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes came out")
	}
}

func TestRecordConn_EachDamagedByte_EndsTheStream(t *testing.T) {
	clean := &sink{}
	w := newRecordConn(clean)
	var want []byte
	for range 3 {
		w.Write([]byte("abcdef"))
		want = append(want, "abcdef"...)
	}
	whole := clean.buf.Bytes()
	for i := range whole {
		for bit := range 8 {
			s := &sink{}
			s.buf.Write(whole)
			s.buf.Bytes()[i] ^= 1 << bit
			got, err := io.ReadAll(newRecordConn(s))
			if !errors.Is(err, ErrBadRecord) { // an end in a record: it waited for what a damaged length promised
				t.Fatalf("bit %d of byte %d changed: %v", bit, i, err)
			}
			if !bytes.HasPrefix(want, got) {
				t.Fatalf("bit %d of byte %d: damaged bytes %q were handed out", bit, i, got)
			}
			if !s.closed {
				t.Fatalf("bit %d of byte %d: the connection is still open", bit, i)
			}
		}
	}
}

func TestRecordConn_RecordLostOrTwice_EndsTheStream(t *testing.T) {
	s := &sink{}
	w := newRecordConn(s)
	w.Write([]byte("one"))
	one := bytes.Clone(s.buf.Bytes())
	w.Write([]byte("two"))
	two := bytes.Clone(s.buf.Bytes()[len(one):])
	for name, stream := range map[string][]byte{"lost": two, "twice": append(bytes.Clone(one), one...)} {
		s := &sink{}
		s.buf.Write(stream)
		if _, err := io.ReadAll(newRecordConn(s)); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecordConn_ReadTimedOutBetweenRecords_GoesOn(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ra, rb := newRecordConn(a), newRecordConn(b)
	rb.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := rb.Read(make([]byte, 4)); err == nil {
		t.Fatal("read past its deadline")
	}
	rb.SetReadDeadline(time.Time{})
	go ra.Write([]byte("late"))
	got := make([]byte, 4)
	if _, err := io.ReadFull(rb, got); err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
}

func BenchmarkRecordConn(b *testing.B) {
	s := &sink{}
	w, r := newRecordConn(s), newRecordConn(s)
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		s.buf.Reset()
		w.Write(chunk)
		io.ReadFull(r, chunk)
	}
}
