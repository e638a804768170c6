package fsm

import (
	"fmt"

	"onceq/transport/wire/pack"
)

// Rows returns the encoded rows of all tables by name, to see where two
// machines differ.
func Rows(m *Machine) map[string]string {
	rows := map[string]string{}
	add := func(name string, write func(w *pack.Writer)) {
		var w pack.Writer
		write(&w)
		rows[name] = fmt.Sprintf("%x", w.Bytes())
	}
	add("scalars", m.appendScalars)
	for n, s := range m.sessions {
		add(fmt.Sprintf("session %d", n), s.appendRow)
	}
	for n, q := range m.queues {
		add(fmt.Sprintf("queue %d", n), q.appendRow)
	}
	for n, c := range m.consumersByOrdinal {
		add(fmt.Sprintf("consumer %d", n), c.appendRow)
	}
	return rows
}

// DifferentRows names the rows in which two machines differ.
func DifferentRows(a, b *Machine) (names []string) {
	ra, rb := Rows(a), Rows(b)
	for n := range ra {
		if ra[n] != rb[n] {
			names = append(names, fmt.Sprintf("%s\n%s\n%s", n, ra[n], rb[n]))
		}
	}
	for n := range rb {
		if ra[n] == "" {
			names = append(names, n+" missing")
		}
	}
	return names
}
