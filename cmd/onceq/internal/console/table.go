package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Output is how data is written.
type Output string

// The outputs.
const (
	Table Output = "table"
	JSON  Output = "json"
	JSONL Output = "jsonl"
)

// Grid is a table: columns that line up, numbers to the right.
type Grid struct {
	head  []string
	right []bool
	rows  [][]string
}

// NewGrid makes a table. A column whose name starts with ">" is set to the
// right.
func NewGrid(columns ...string) *Grid {
	g := &Grid{}
	for _, c := range columns {
		name, right := strings.CutPrefix(c, ">")
		g.head = append(g.head, name)
		g.right = append(g.right, right)
	}
	return g
}

// Row adds a row; it has a cell for each column.
func (g *Grid) Row(cells ...any) {
	row := make([]string, len(g.head))
	for i := range row {
		if i < len(cells) {
			row[i] = fmt.Sprint(cells[i])
		}
		if row[i] == "" {
			row[i] = "-"
		}
	}
	g.rows = append(g.rows, row)
}

// WriteTo writes the table. Spaces at the end of a line are left out.
func (g *Grid) WriteTo(w io.Writer) (int64, error) {
	width := make([]int, len(g.head))
	lines := append([][]string{g.head}, g.rows...)
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], visible(cell))
		}
	}
	var b bytes.Buffer
	for _, line := range lines {
		var s strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", width[i]-visible(cell))
			if g.right[i] {
				s.WriteString(pad + cell)
			} else {
				s.WriteString(cell + pad)
			}
			s.WriteString("  ")
		}
		b.WriteString(strings.TrimRight(s.String(), " "))
		b.WriteByte('\n')
	}
	return b.WriteTo(w)
}

// visible is the width of s on the screen, colour sequences left out.
func visible(s string) int {
	n := 0
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return n + utf8.RuneCountInString(s)
		}
		n += utf8.RuneCountInString(s[:i])
		end := strings.IndexByte(s[i:], 'm')
		if end < 0 {
			return n
		}
		s = s[i+end+1:]
	}
}

// WriteJSON writes v as one indented document (JSON), or one line (JSONL).
func WriteJSON(w io.Writer, o Output, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if o == JSON {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// WriteList writes a list: as one document (JSON), or an item a line (JSONL).
func WriteList[T any](w io.Writer, o Output, items []T) error {
	if o == JSON {
		if items == nil {
			items = []T{}
		}
		return WriteJSON(w, o, items)
	}
	for _, item := range items {
		if err := WriteJSON(w, JSONL, item); err != nil {
			return err
		}
	}
	return nil
}
