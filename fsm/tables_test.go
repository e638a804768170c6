package fsm_test

import (
	"slices"
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
)

// forgetful is a BodyStore that keeps nothing, and must not be read.
type forgetful struct {
	noBodies
	t *testing.T
}

func (f forgetful) Freeze() fsm.FrozenBodies {
	f.t.Error("bodies are read")
	return noBodies{}
}

// TestApply_DecidesFromTheTablesAlone: a machine whose bodies are lost does what one
// does that has them all, command by command, moves, dead letters and a restore included.
// What a node has in its caches or on its disk can make no difference.
func TestApply_DecidesFromTheTablesAlone(t *testing.T) {
	t.Parallel()
	with := fsm.New(fsm.Config{Group: fsmtest.Group}, storage.NewMemory())
	without := fsm.New(fsm.Config{Group: fsmtest.Group}, forgetful{t: t})
	for i, e := range goldenEntries(t) {
		a, err := with.Apply(uint64(i+1), e)
		if err != nil {
			t.Fatal(err)
		}
		b, err := without.Apply(uint64(i+1), e)
		if err != nil {
			t.Fatal(err)
		}
		if x, y := fsmtest.Describe(a), fsmtest.Describe(b); !slices.Equal(x, y) {
			t.Fatalf("entry %d: with bodies %q, without %q", i+1, x, y)
		}
		if with.Digest() != without.Digest() {
			t.Fatalf("entry %d: the digests differ", i+1)
		}
	}
}

// TestBacklog_OfPlainMessages_HasNoRecords: it is a range in each lane, whatever its
// length, also when it was handed out and acked in part.
func TestBacklog_OfPlainMessages_HasNoRecords(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"), open(1))
	for seq := range uint64(10) {
		f := fsmtest.Frame(1, 1, 1, seq+1, 0, "q", make([]string, 1000)...)
		for i := range f.Publishes[0].Messages {
			f.Publishes[0].Messages[i].Priority = uint8(seq)
		}
		m.apply(fsmtest.New(f))
	}
	m.apply(attach(1, 1, "q", 500))
	m.apply(ack(1, 1, 500, 501))
	if c := m.Counts(); c.Messages != 9_500 || c.Indexed != 0 || c.Leases != 500 {
		t.Fatalf("%+v", c)
	}
}
