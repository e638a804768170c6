package fsm

const (
	// A table with a tableLeftPart-th of the rows it once had is moved to a room
	// of its size, if that was more than tableRoomMin rows.
	tableLeftPart, tableRoomMin = 1 << 10, 1 << 13
)

// table is a map that gives room back. Go's maps never shrink: ten million
// messages that once waited would hold 400 MiB when all but one are gone, and
// whoever goes over the table a row at a time would wait 50 ms for that one.
type table[K comparable, V any] struct {
	rows map[K]V
	most int // rows, since there is this room
}

func newTable[K comparable, V any]() table[K, V] { return table[K, V]{rows: map[K]V{}} }

// remove takes a row out. Whoever goes over the rows meanwhile may go on with
// those of the old room.
func (t *table[K, V]) remove(k K) {
	t.most = max(t.most, len(t.rows))
	delete(t.rows, k)
	if t.most <= tableRoomMin || len(t.rows) > t.most/tableLeftPart {
		return
	}
	room := make(map[K]V, len(t.rows))
	for k, v := range t.rows {
		room[k] = v
	}
	t.rows, t.most = room, len(room)
}
