package raftlog

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestCheckConfig(t *testing.T) {
	for _, c := range []struct {
		name     string
		append   int
		trailing uint64
		flow     Flow
		ok       bool
	}{
		{"the library's defaults", 64, 10240, Flow{}, false}, // 64 x 2 x 4 MiB
		{"flow at the limit", 8, 10240, Flow{}, true},
		{"flow beyond the limit", 9, 10240, Flow{}, false},
		{"small entries", 64, 10240, Flow{EntryBytes: 512 << 10}, true},
		{"small entries, more requests", 64, 10240, Flow{EntryBytes: 512 << 10, RPCsInFlight: 3}, false},
		{"trailing at the limit", 8, 96, Flow{}, true}, // 4 x 8 x (2 + 1)
		{"trailing below the limit", 8, 95, Flow{}, false},
		{"trailing for more requests", 4, 79, Flow{RPCsInFlight: 4}, false},
		{"trailing for more requests, at the limit", 4, 80, Flow{RPCsInFlight: 4}, true},
		{"entries beyond the log's limit", 1, 10240, Flow{EntryBytes: EntryBytesMax}, false},
		{"no entries", 0, 10240, Flow{}, false},
		{"negative", 8, 10240, Flow{RPCsInFlight: -1}, false},
	} {
		conf := raft.DefaultConfig()
		conf.MaxAppendEntries, conf.TrailingLogs = c.append, c.trailing
		if err := CheckConfig(conf, c.flow); (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrConfig)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHCLog(t *testing.T) {
	var buf bytes.Buffer
	l := HCLog(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	named := l.Named("raft").With("node", "a").Named("fsm")
	named.Trace("invisible")
	named.Debug("d", "n", 1)
	named.Info("i", "servers", hclog.Fmt("%+v", []int{1, 2}))
	named.Warn("w", "hex", hclog.Hex(255), "quote", hclog.Quote("q\n"))
	named.Error("e", "error", errors.New("broken"))
	l.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}).Print("[WARN] inferred")
	l.StandardLogger(nil).Print("[ERR] plain")
	want := strings.Join([]string{
		`level=DEBUG msg=d logger=raft.fsm node=a n=1`,
		`level=INFO msg=i logger=raft.fsm node=a servers="[1 2]"`,
		`level=WARN msg=w logger=raft.fsm node=a hex=0xff quote="\"q\\n\""`,
		`level=ERROR msg=e logger=raft.fsm node=a error=broken`,
		`level=WARN msg=inferred`,
		`level=INFO msg=plain`,
	}, "\n") + "\n"
	if buf.String() != want {
		t.Errorf("logged\n%s\nwant\n%s", buf.String(), want)
	}
	if l.GetLevel() != hclog.Debug || l.IsTrace() || !l.IsDebug() || !l.IsError() || named.Name() != "raft.fsm" || len(named.ImpliedArgs()) != 2 {
		t.Errorf("level %v, name %q, args %v", l.GetLevel(), named.Name(), named.ImpliedArgs())
	}
}
