package fsm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/transport/wire"
)

// Many sessions and many messages with a record have come and gone, and the tables
// are as large as what is left of them: so is the memory, and what a copy or a look has
// to go over for one row. A copy that was begun before misses nothing.
func TestTables_AlmostEmpty_GiveTheirRoomBack(t *testing.T) {
	t.Parallel()
	const n = 10_000
	m := &machine{Machine: fsm.New(fsm.Config{Group: grp}, noBodies{}), t: t}
	m.apply(fsmtest.New(fsmtest.Term{Node: "n1"}), create("q"), open(1))
	for i := range n / 1000 {
		ms := make([]wire.Message, 1000)
		for j := range ms {
			ms[j] = wire.Message{OrderingKey: fmt.Sprint("key-", i, "-", j), TTL: time.Hour}
		}
		if i%2 == 0 {
			ms[999].TTL = 1000 * time.Hour
		}
		f := fsmtest.Frame(1, 1, uint64(i)+1, uint64(i)+1, 0, "q")
		f.Publishes[0].Messages = ms
		cs := []fsmtest.Command{fsmtest.New(f)}
		for j := range 1000 {
			var nonce wire.Nonce
			binary.BigEndian.PutUint64(nonce[8:], uint64(i*1000+j)+1)
			cs = append(cs, fsmtest.New(wire.OpenSession{Incarnation: inc, Group: grp, Nonce: nonce}))
		}
		m.apply(cs...)
	}
	if sessions, records, keys := fsm.Room(m.Machine, 1); sessions != n+1 || records != n || keys != n {
		t.Fatalf("there is room for %d sessions, %d records and %d keys", sessions, records, keys)
	}
	m.BeginCopy()
	m.CopySome(1<<10, nil)
	m.now = 1000 * time.Hour / 2
	m.entriesUntilDone(m.apply(open(200)))
	if c := m.Counts(); c.Sessions != 1 || c.Indexed > 20 {
		t.Fatalf("what was to go did not: %+v", c)
	}
	if sessions, records, keys := fsm.Room(m.Machine, 1); max(sessions, records, keys) > 100 {
		t.Errorf("there is room for %d sessions, %d records and %d keys", sessions, records, keys)
	}
	if copied := content(t, m); !bytes.Equal(copied, content(t, m)) {
		t.Error("a copy that was begun before differs from what is there")
	}
}
