package console

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestGrid_LinesUp(t *testing.T) {
	g := NewGrid("QUEUE", ">READY", "NOTE")
	g.Row("orders", Count(1204118), "x")
	g.Row("a", 0, "")
	g.Row("\x1b[31mred\x1b[0m", 12, "größe")
	var b bytes.Buffer
	if _, err := g.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := "QUEUE       READY  NOTE\n" +
		"orders  1,204,118  x\n" +
		"a               0  -\n" +
		"\x1b[31mred\x1b[0m            12  größe\n"
	if b.String() != want {
		t.Fatalf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestNumbers(t *testing.T) {
	for got, want := range map[string]string{
		Count(uint64(0)): "0", Count(999): "999", Count(1000): "1,000", Count(-1234567): "-1,234,567",
		Count(uint64(1<<64 - 1)):          "18,446,744,073,709,551,615",
		Rate(100, 2*time.Second):          "50",
		Rate(100, 0):                      "-",
		Millis(1900 * time.Microsecond):   "1.9 ms",
		Millis(120 * time.Microsecond):    "0.12 ms",
		Millis(2 * time.Second):           "2000 ms",
		Age(0):                            "-",
		Age(850 * time.Millisecond):       "850ms",
		Age(3*time.Hour + 12*time.Minute): "3h12m",
		Age(4*24*time.Hour + 2*time.Hour): "4d2h",
		Age(61 * time.Second):             "1m01s",
		Bytes(512):                        "512 B",
		Bytes(1536):                       "1.5 KiB",
		Bytes(3 << 40):                    "3.0 TiB",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestProgress_NobodyWatches_WritesNothing(t *testing.T) {
	var b bytes.Buffer
	c := &Console{Err: &b}
	c.Progress("half")
	c.Done()
	if b.Len() != 0 {
		t.Fatalf("wrote %q", b.String())
	}
}

func TestProgress_IsGoneBeforeANote(t *testing.T) {
	var b bytes.Buffer
	c := &Console{Err: &b, ErrIsTerminal: true}
	c.Progress("half")
	c.Note("news")
	c.Done()
	if got := b.String(); got != "half\r\x1b[Knews\n" {
		t.Fatalf("wrote %q", got)
	}
}

func TestPaint_OnlyWhereColoursAreWanted(t *testing.T) {
	if got := (&Console{}).Paint("x", Red); got != "x" {
		t.Fatalf("painted %q", got)
	}
	if got := (&Console{Color: true}).Paint("x", Red); !strings.Contains(got, "\x1b[31mx") {
		t.Fatalf("not painted: %q", got)
	}
}

func TestWriteList(t *testing.T) {
	type row struct {
		A int `json:"a"`
	}
	for _, c := range []struct {
		o    Output
		in   []row
		want string
	}{
		{JSONL, []row{{1}, {2}}, "{\"a\":1}\n{\"a\":2}\n"},
		{JSONL, nil, ""},
		{JSON, nil, "[]\n"},
		{JSON, []row{{1}}, "[\n  {\n    \"a\": 1\n  }\n]\n"},
	} {
		var b bytes.Buffer
		if err := WriteList(&b, c.o, c.in); err != nil || b.String() != c.want {
			t.Errorf("%s %v: %q, %v", c.o, c.in, b.String(), err)
		}
	}
}
