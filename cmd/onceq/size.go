package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes on the command line: 1048576, 512MiB, 5GiB.
type size uint64

var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// UnmarshalText reads what a user wrote.
func (s *size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		digits, fits := strings.CutSuffix(strings.TrimSpace(string(text)), u.name)
		if !fits {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if err != nil || n > math.MaxUint64/u.bytes {
			break
		}
		*s = size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is no size: write 1048576, 512MiB or 5GiB", text)
}
