package raftlog

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// HCLog gives hashicorp's libraries a logger that writes to l.
func HCLog(l *slog.Logger) hclog.Logger { return &hcLogger{slog: l} }

type hcLogger struct {
	slog *slog.Logger
	name string
	args []any
}

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (h *hcLogger) enabled(level hclog.Level) bool {
	return level != hclog.Off && h.slog.Enabled(context.Background(), slogLevel(level))
}

func (h *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	if !h.enabled(level) {
		return
	}
	attrs := make([]any, 0, len(h.args)+len(args)+2)
	if h.name != "" {
		attrs = append(attrs, "logger", h.name)
	}
	attrs = append(attrs, h.args...)
	attrs = append(attrs, args...)
	for i, a := range attrs {
		attrs[i] = slogValue(a)
	}
	h.slog.Log(context.Background(), slogLevel(level), msg, attrs...)
}

// slogValue renders the values that hclog formats itself.
func slogValue(a any) any {
	switch v := a.(type) {
	case hclog.Format:
		if len(v) > 0 {
			if format, ok := v[0].(string); ok {
				return fmt.Sprintf(format, v[1:]...)
			}
		}
		return fmt.Sprint([]any(v)...)
	case hclog.Hex:
		return fmt.Sprintf("%#x", int(v))
	case hclog.Octal:
		return fmt.Sprintf("%#o", int(v))
	case hclog.Binary:
		return fmt.Sprintf("%#b", int(v))
	case hclog.Quote:
		return fmt.Sprintf("%q", string(v))
	default:
		return a
	}
}

func (h *hcLogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hcLogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hcLogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hcLogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hcLogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hcLogger) IsTrace() bool { return h.enabled(hclog.Trace) }
func (h *hcLogger) IsDebug() bool { return h.enabled(hclog.Debug) }
func (h *hcLogger) IsInfo() bool  { return h.enabled(hclog.Info) }
func (h *hcLogger) IsWarn() bool  { return h.enabled(hclog.Warn) }
func (h *hcLogger) IsError() bool { return h.enabled(hclog.Error) }

func (h *hcLogger) ImpliedArgs() []any { return h.args }
func (h *hcLogger) Name() string       { return h.name }

func (h *hcLogger) With(args ...any) hclog.Logger {
	return &hcLogger{slog: h.slog, name: h.name, args: append(h.args[:len(h.args):len(h.args)], args...)}
}

func (h *hcLogger) Named(name string) hclog.Logger {
	if h.name != "" {
		name = h.name + "." + name
	}
	return h.ResetNamed(name)
}

func (h *hcLogger) ResetNamed(name string) hclog.Logger {
	return &hcLogger{slog: h.slog, name: name, args: h.args}
}

// SetLevel does nothing: the level belongs to the slog handler.
func (h *hcLogger) SetLevel(hclog.Level) {}

func (h *hcLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if h.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (h *hcLogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(h.StandardWriter(o), "", 0)
}

// StandardWriter logs each write as one message, at the level that its prefix names ("[WARN] ...") when asked to infer it.
func (h *hcLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	w := &hcWriter{logger: h, level: hclog.Info}
	if o != nil {
		w.infer = o.InferLevels || o.InferLevelsWithTimestamp
		if o.ForceLevel != hclog.NoLevel {
			w.level, w.infer = o.ForceLevel, false
		}
	}
	return w
}

type hcWriter struct {
	logger *hcLogger
	level  hclog.Level
	infer  bool
}

func (w *hcWriter) Write(b []byte) (int, error) {
	msg, level := strings.TrimSpace(string(b)), w.level
	if prefix, rest, ok := strings.Cut(strings.TrimPrefix(msg, "["), "]"); ok && strings.HasPrefix(msg, "[") {
		if prefix == "ERR" {
			prefix = "ERROR"
		}
		if named := hclog.LevelFromString(prefix); named != hclog.NoLevel {
			msg = strings.TrimSpace(rest)
			if w.infer {
				level = named
			}
		}
	}
	w.logger.Log(level, msg)
	return len(b), nil
}
