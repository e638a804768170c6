package onceqtest

import (
	"bytes"
	"sync"
)

// logs keeps the end of what the nodes log, for tests that fail.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const logBytesMax = 256 << 10

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > logBytesMax {
		l.buf.Next(logBytesMax / 2)
	}
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
