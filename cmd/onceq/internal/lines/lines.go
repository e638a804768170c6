// Package lines reads messages, one a line, with a bound on a line's length.
package lines

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong is in the error for a line beyond the bound.
var ErrTooLong = errors.New("line too long")

// Reader reads lines.
type Reader struct {
	r   *bufio.Reader
	max int
	n   int // lines read
}

// NewReader makes a reader for lines of at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 256<<10), max: max}
}

// Line is the number of the line read last, from 1.
func (r *Reader) Line() int { return r.n }

// Next returns the next line without its newline, as bytes of its own, since a
// message lives on after the next line is read. A last line without a newline
// counts; nothing else is trimmed. At the end the error is io.EOF.
func (r *Reader) Next() ([]byte, error) {
	var line []byte
	for {
		part, err := r.r.ReadSlice('\n')
		if err == nil {
			part = part[:len(part)-1]
		}
		if len(line)+len(part) > r.max {
			return nil, fmt.Errorf("line %d: %w (more than %d bytes)", r.n+1, ErrTooLong, r.max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			r.n++
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			r.n++
			return line, nil
		default:
			return nil, err
		}
	}
}
