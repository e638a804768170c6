package workload

import (
	"bytes"
	"fmt"
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
	if id, err := idOf([]byte("nothing"), "r1-p1-7|filling"); id != "r1-p1-7" || err == nil {
		t.Errorf("without an id in the body: read %q, %v", id, err)
	}
}

func TestBody_SomeAreLarge(t *testing.T) {
	t.Parallel()
	large := 0
	for i := range 40 * largeOne {
		id := fmt.Sprintf("r1-p1-%d", i)
		b := body(id)
		if len(b) > largeMost {
			t.Fatalf("%s has %d bytes", id, len(b))
		}
		if len(b) > bodyMax+100 {
			large++
			if got, err := idOf(b, id); got != id || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		}
	}
	if large == 0 || large > 400 {
		t.Errorf("%d of %d are large", large, 40*largeOne)
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
