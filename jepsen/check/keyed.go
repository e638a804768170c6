package check

import (
	"cmp"
	"slices"

	"onceq/jepsen/history"
)

// keyOrder: of the messages with one ordering key one is handed out at a time, in
// the order in which they are stored, across redelivery and whoever gets them. A
// message is out of the way of the next when it is acked, so an ack of it must at
// least have been asked for before the next is seen.
func keyOrder(v *view, r *Report) {
	type row struct {
		lane lane
		key  string
	}
	rows := map[row][]*message{}
	var order []row
	for _, m := range v.order {
		key := m.orderingKey()
		p, ok := m.placed()
		if key == "" || !ok {
			continue
		}
		k := row{laneOf(p), key}
		if rows[k] == nil {
			order = append(order, k)
		}
		rows[k] = append(rows[k], m)
	}
	for _, k := range order {
		inKey(v, k.key, rows[k], r)
	}
}

func (m *message) orderingKey() string {
	if len(m.publishes) == 0 {
		return ""
	}
	return m.publishes[0].OrderingKey
}

// inKey walks along a key and keeps, of all that came before, the one that was
// done last.
func inKey(v *view, key string, row []*message, r *Report) {
	slices.SortFunc(row, func(a, b *message) int {
		x, _ := a.placed()
		y, _ := b.placed()
		return cmp.Compare(x.Seq, y.Seq)
	})
	var slowest *message
	done := int64(-1)
	for _, m := range row {
		for _, g := range m.grants {
			if slowest != nil && g.T1 < done {
				p, _ := slowest.placed()
				seen := append([]op{p}, slowest.grants...)
				r.broken("key-order", m.id, append(seen, g), "%s got it (key %s, offset %d) while %s, at offset %d, was not done", g.Proc, key, g.Seq, slowest.id, p.Seq)
				break
			}
		}
		if t := m.doneAt(); t > done {
			slowest, done = m, t
		}
	}
}

// doneAt is the earliest moment at which the message may have been acked.
func (m *message) doneAt() int64 {
	t := int64(never)
	for _, s := range m.settles {
		if s.F == history.Ack && s.maybe() {
			t = min(t, s.T0)
		}
	}
	return t
}
