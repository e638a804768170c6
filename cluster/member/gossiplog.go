package member

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// memberlistLogger passes memberlist's lines on, a level lower: what it calls
// an error is mostly a node that is away, which we report ourselves.
func memberlistLogger(l *slog.Logger) *log.Logger {
	return log.New(&logWriter{log: l}, "", 0)
}

type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(line []byte) (int, error) {
	n := len(line)
	line = bytes.TrimSpace(line)
	level := slog.LevelDebug
	if bytes.HasPrefix(line, []byte("[")) {
		if word, rest, ok := bytes.Cut(line[1:], []byte("] ")); ok {
			if string(word) == "ERR" {
				level = slog.LevelInfo
			}
			line = rest
		}
	}
	w.log.Log(context.Background(), level, string(line))
	return n, nil
}
