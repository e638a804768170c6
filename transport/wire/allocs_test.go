package wire

import (
	"testing"

	"onceq/transport/wire/pack"
)

// What every message goes through allocates nothing: a count is no duration, so
// it can be asserted.
func TestAllocs_MessageThereAndBack_None(t *testing.T) {
	m := Message{Body: make([]byte, 1024)}
	var w pack.Writer
	var out []byte
	var back Message
	if n := testing.AllocsPerRun(100, func() {
		w.Reset()
		m.Append(&w)
		out = AppendFrame(out[:0], OpPublish, false, 1, w.Bytes())
		if err := back.Decode(out[FrameHeaderBytes:]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(back.Body) != len(m.Body) {
		t.Fatal(back)
	}
}

func TestAllocs_Checksum_None(t *testing.T) {
	ms := []Message{{Body: make([]byte, 1024)}}
	if n := testing.AllocsPerRun(100, func() { PublishChecksum("orders", ms) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
