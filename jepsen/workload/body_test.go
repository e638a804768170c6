package workload

import (
	"bytes"
	"testing"
)

func TestBody_IsRecognisedAndDamageIsNot(t *testing.T) {
	t.Parallel()
	b := body("r1-p1-7")
	if id, err := idOf(b, "r1-p1-7"); id != "r1-p1-7" || err != nil {
		t.Errorf("read %q, %v", id, err)
	}
	if !bytes.Equal(b, body("r1-p1-7")) {
		t.Error("the body of an id is not always the same")
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := idOf(bad, "r1-p1-7"); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d is not seen", i, len(b))
		}
	}
	for _, bad := range [][]byte{nil, []byte("r1"), b[:len(b)-1], append(bytes.Clone(b), 0)} {
		if _, err := idOf(bad, "r1-p1-7"); err == nil {
			t.Errorf("%d bytes are taken for the body", len(bad))
		}
	}
	if _, err := idOf(b, "r1-p1-8"); err == nil {
		t.Error("another biz-id is not seen")
	}
}

func TestFind_KnowsEveryWorkload(t *testing.T) {
	t.Parallel()
	for _, w := range All() {
		got, ok := Find(w.Name)
		if !ok || got.Name != w.Name || w.What == "" || len(w.Queues) == 0 {
			t.Errorf("%q: %+v", w.Name, w)
		}
	}
	if _, ok := Find("nonsense"); ok {
		t.Error("nonsense is a workload")
	}
}
