package lines

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func all(t *testing.T, r *Reader) ([]string, error) {
	t.Helper()
	var out []string
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, string(b))
	}
}

func TestReader_EachLineAsItIs(t *testing.T) {
	long := strings.Repeat("x", 700<<10) // longer than the buffer
	for in, want := range map[string][]string{
		"":                 nil,
		"a\nb\n":           {"a", "b"},
		"a\nb":             {"a", "b"},
		"\n\nx\r\n":        {"", "", "x\r"},
		" a \n" + long:     {" a ", long},
		long + "\nb\n":     {long, "b"},
		"\x00\xff\n\x01\n": {"\x00\xff", "\x01"},
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.HalfReader(strings.NewReader(in))} {
			got, err := all(t, NewReader(r, 1<<20))
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%.20q gives %.40q, %v", in, got, err)
			}
		}
	}
}

func TestReader_LinesAreTheirOwn(t *testing.T) {
	r := NewReader(strings.NewReader("first\nsecond\n"), 100)
	first, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if string(first) != "first" {
		t.Fatalf("reading on changed an earlier line to %q", first)
	}
}

func TestReader_LongLine_IsRefusedWithItsNumber(t *testing.T) {
	r := NewReader(strings.NewReader("ok\n"+strings.Repeat("x", 101)+"\n"), 100)
	got, err := all(t, r)
	if !errors.Is(err, ErrTooLong) || !strings.Contains(err.Error(), "line 2") || len(got) != 1 {
		t.Fatalf("%q, %v", got, err)
	}
}

// A line without an end must not be read into memory whole.
func TestReader_EndlessLine_IsRefused(t *testing.T) {
	r := NewReader(endless{}, 1<<20)
	if _, err := r.Next(); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
