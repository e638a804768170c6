package demo

import (
	"fmt"
	"io"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/ledger"
)

// Write writes the ledger of a run for people.
func Write(w io.Writer, con *console.Console, res *Result) error {
	r := res.Report
	again := r.Nacked + r.Expired + r.Gone + r.Left
	for _, line := range []struct {
		name string
		n    uint64
		note string
	}{
		{"published", r.Published, "ids"},
		{"confirmed", r.Confirmed, others(r)},
		{"retransmitted", r.Retransmitted, "copies sent again, since their answer was lost"},
		{"duplicates refused", r.DupRefused, "copies of what was stored already, answered from the record"},
		{"stored", r.Stored, "as the machine counts"},
		{"delivered", r.Delivered, "as the consumers saw"},
		{"redelivered", again, fmt.Sprintf("nacked on purpose %s, lease ran out %s, consumer given up %s, given back %s",
			console.Count(r.Nacked), console.Count(r.Expired), console.Count(r.Gone), console.Count(r.Left))},
		{"acked", r.Acked, "as the machine counts"},
		{"lost", r.Lost, ""},
		{"digests equal", uint64(r.DigestsAgree), fmt.Sprintf("of %d nodes", r.Nodes)},
	} {
		note := ""
		if line.note != "" {
			note = "  " + line.note
		}
		if _, err := fmt.Fprintf(w, "  %-18s %11s%s\n", line.name, console.Count(line.n), note); err != nil {
			return err
		}
	}
	if r.Excused != "" {
		fmt.Fprintf(w, "  note: %s\n", r.Excused)
	}
	if res.Balanced {
		_, err := fmt.Fprintf(w, "%s  each confirmed message was stored once, delivered and acked; nothing came twice without a reason (%.1f s)\n",
			con.Paint("THE BOOKS BALANCE", console.Green), res.Took.Seconds())
		return err
	}
	total := 0
	for _, n := range r.Count {
		total += n
	}
	fmt.Fprintf(w, "%s  %s findings\n", con.Paint("THE BOOKS DO NOT BALANCE", console.Red), console.Count(total))
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s: %s\n", f.Kind, f.Text)
	}
	if total > len(r.Findings) {
		fmt.Fprintf(w, "  and %s more\n", console.Count(total-len(r.Findings)))
	}
	_, err := fmt.Fprintf(w, "data and logs are kept in %s\n", res.Dir)
	return err
}

// others says how the publishes ended that were not confirmed.
func others(r *ledger.Report) string {
	if r.Unknown+r.Sealed+r.Refused == 0 {
		return ""
	}
	return fmt.Sprintf("outcome unknown %s, sealed %s, refused %s", console.Count(r.Unknown), console.Count(r.Sealed), console.Count(r.Refused))
}
