package wire

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// constants returns the constants of a type that a file of this package
// declares, by value: so that a new one without a name or an explanation is
// seen.
func constants(t *testing.T, file, typeName string) map[uint64]string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[uint64]string)
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typeName {
			return true
		}
		v, err := strconv.ParseUint(spec.Values[0].(*ast.BasicLit).Value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := found[v]; taken {
			t.Errorf("%s and %s are both %d", other, spec.Names[0].Name, v)
		}
		found[v] = spec.Names[0].Name
		return true
	})
	if len(found) == 0 {
		t.Fatalf("no constants of %s in %s", typeName, file)
	}
	return found
}

func TestCodes_AllAreExplained(t *testing.T) {
	declared := constants(t, "codes.go", "Code")
	for v, name := range declared {
		ex, ok := Explain(Code(v))
		if !ok {
			t.Errorf("%s has no explanation", name)
			continue
		}
		if ex.Name == "" || !strings.HasSuffix(ex.What, ".") || !strings.HasSuffix(ex.Why, ".") || !strings.HasSuffix(ex.Do, ".") {
			t.Errorf("%s: explanation lacks a part: %+v", name, ex)
		}
	}
	codes := Codes()
	if len(codes) != len(declared) {
		t.Errorf("%d codes are explained, %d are declared", len(codes), len(declared))
	}
	for i := 1; i < len(codes); i++ {
		if codes[i] <= codes[i-1] {
			t.Errorf("%v comes before %v", codes[i-1], codes[i])
		}
	}
	if _, ok := Explain(9999); ok {
		t.Error("a code that does not exist is explained")
	}
}

func TestNames_AllConstantsHaveOne(t *testing.T) {
	for _, c := range []struct {
		file, typeName string
		text           func(v uint64) string
		prefix         string
	}{
		{"ops.go", "Op", func(v uint64) string { return Op(v).String() }, "op "},
		{"status.go", "Status", func(v uint64) string { return Status(v).String() }, "status "},
		{"status.go", "LeaseState", func(v uint64) string { return LeaseState(v).String() }, "lease state "},
		{"status.go", "EditVerb", func(v uint64) string { return EditVerb(v).String() }, "edit verb "},
		{"status.go", "EditState", func(v uint64) string { return EditState(v).String() }, "edit state "},
		{"status.go", "ConditionField", func(v uint64) string { return ConditionField(v).String() }, "condition field "},
		{"status.go", "ConditionMatch", func(v uint64) string { return ConditionMatch(v).String() }, "condition match "},
		{"status.go", "MessageState", func(v uint64) string { return MessageState(v).String() }, "message state "},
		{"status.go", "EventKind", func(v uint64) string { return EventKind(v).String() }, "event "},
		{"status.go", "SettleVerb", func(v uint64) string { return SettleVerb(v).String() }, "verb "},
	} {
		seen := make(map[string]string)
		for v, name := range constants(t, c.file, c.typeName) {
			text := c.text(v)
			if text == c.prefix+strconv.FormatUint(v, 10) {
				t.Errorf("%s has no text", name)
			}
			if other, taken := seen[text]; taken {
				t.Errorf("%s and %s are both %q", name, other, text)
			}
			seen[text] = name
		}
		if got := c.text(250); got != c.prefix+"250" {
			t.Errorf("unknown %s is %q", c.typeName, got)
		}
	}
	if got := CodeNotLeader.String(); got != "ONCEQ-1002" {
		t.Error(got)
	}
	if got := Code(7).String(); got != "ONCEQ-0007" {
		t.Error(got)
	}
}

func TestCodeOf_EveryStatusButOKHasItsOwnKindOfCode(t *testing.T) {
	for v, name := range constants(t, "status.go", "Status") {
		code := CodeOf(Status(v))
		if _, ok := Explain(code); (Status(v) == StatusOK) != (code == 0) || code != 0 && !ok || code == CodeInternal {
			t.Errorf("%s has code %v", name, code)
		}
	}
	if CodeOf(StatusNoQueue) != CodeNoQueue || CodeOf(StatusWrongIncarnation) != CodeWrongCluster || CodeOf(250) != CodeInternal {
		t.Error("a status has the code of another")
	}
}

func TestError_TextAndIs(t *testing.T) {
	err := error(&Error{NewErrorReply(CodeNoQueue, "no queue %q", "x")})
	if got := err.Error(); got != `ONCEQ-2010: no queue "x"` {
		t.Error(got)
	}
	if got := (&Error{ErrorReply{Code: CodeFenced}}).Error(); got != "ONCEQ-2002: fenced" {
		t.Error(got)
	}
	if got := (&Error{ErrorReply{Code: 9999}}).Error(); got != "ONCEQ-9999: unknown error" {
		t.Error(got)
	}
	wrapped := fmt.Errorf("publish: %w", err)
	if !errors.Is(wrapped, &Error{ErrorReply{Code: CodeNoQueue}}) || errors.Is(wrapped, &Error{ErrorReply{Code: CodeFenced}}) {
		t.Error("errors.Is does not go by the code")
	}
	long := NewErrorReply(CodeNoLeader, "%s", strings.Repeat("x", 10_000))
	if !long.Retriable || NewErrorReply(CodeNoQueue, "").Retriable {
		t.Error("retriable is not as the table says")
	}
	if got, err := DecodeErrorReply(encode(long)); err != nil || got != long {
		t.Errorf("a long text does not decode: %v", err)
	}
}

func TestIDs_TextForms(t *testing.T) {
	id := InnerMsgID{SessionID{0x9f3ac01276d3e5aa, 1, 42}, 1093}
	short := id
	short.Session.Incarnation = 0
	for want, got := range map[string]string{
		"s1.42.1093@9f3ac01276d3e5aa":      id.String(),
		"s1.42.1093":                       id.Short(),
		"s1.42.1093@0000000000000001":      InnerMsgID{SessionID{1, 1, 42}, 1093}.String(),
		"s1.42@9f3ac01276d3e5aa":           id.Session.String(),
		"s1.42":                            short.Session.String(),
		"orders/17":                        FormatMessageID("orders", 0, 17),
		"orders/p3.17":                     FormatMessageID("orders", 3, 17),
		"0a000000000000000000000000000000": ConsumerID{10}.String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if short.String() != "s1.42.1093" {
		t.Error(short.String())
	}
	for _, want := range []InnerMsgID{id, short, {}, {SessionID{1<<64 - 1, 1<<32 - 1, 1<<64 - 1}, 1<<64 - 1}} {
		if got, err := ParseInnerMsgID(want.String()); got != want || err != nil {
			t.Errorf("%v parses to %v, %v", want, got, err)
		}
	}
	for _, bad := range []string{
		"", "s", "1.42.1093", "s1.42", "s1.42.1093.5", "s1.42.x", "s1.042.1093", "s1.+42.1", "s-1.1.1", "s1.42.1093@",
		"s1.42.1093@9f3a", "s1.42.1093@9F3AC01276D3E5AA", "s1.42.1093@0000000000000000", "s1.42.1093@9f3ac01276d3e5aa ",
		"s4294967296.1.1", "s1.1.18446744073709551616", "s1.1.1@zzzzzzzzzzzzzzzz", strings.Repeat("s", 1000),
	} {
		if _, err := ParseInnerMsgID(bad); !errors.Is(err, ErrBadID) || len(err.Error()) > 300 {
			t.Errorf("%.100q: %v", bad, err)
		}
	}
}

func FuzzParseInnerMsgID(f *testing.F) {
	f.Add("s1.42.1093")
	f.Add("s1.42.1093@9f3ac01276d3e5aa")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseInnerMsgID(text)
		if err == nil && id.String() != text {
			t.Fatalf("%q parses to %v", text, id)
		}
	})
}

func TestMessageID_ParsesBack(t *testing.T) {
	for _, c := range []struct {
		queue string
		at    Place
	}{{"orders", Place{Lane: 0, Offset: 17}}, {"orders", Place{Lane: 3, Offset: 17}}, {"p3.1", Place{Lane: 9, Offset: 0}}, {"a.b-c", Place{Lane: 0, Offset: 1<<64 - 1}}} {
		text := FormatMessageID(c.queue, c.at.Lane, c.at.Offset)
		if queue, at, err := ParseMessageID(text); queue != c.queue || at != c.at || err != nil {
			t.Errorf("%s parses to %q %v, %v", text, queue, at, err)
		}
	}
	for _, bad := range []string{
		"", "orders", "/17", "orders/", "orders/x", "orders/p3", "orders/p0.17", "orders/p10.1", "orders/3.17", "orders/pp3.17",
		"orders/p3.017", "orders/017", "a b/1", "orders/1/2", "orders/-1", "orders/18446744073709551616", strings.Repeat("s", 1000),
	} {
		if _, _, err := ParseMessageID(bad); !errors.Is(err, ErrBadID) || len(err.Error()) > 500 {
			t.Errorf("%.100q: %v", bad, err)
		}
	}
}

func TestAckPublishChecksum_SeesTheLeaseAndEveryOutput(t *testing.T) {
	ms := []Message{{Body: []byte("hi")}}
	outs := []Output{{"a", ms}, {"b", ms}}
	sums := map[uint64]string{}
	for name, sum := range map[string]uint64{
		"base":              AckPublishChecksum(ConsumerID{1}, 1, outs),
		"another consumer":  AckPublishChecksum(ConsumerID{2}, 1, outs),
		"another number":    AckPublishChecksum(ConsumerID{1}, 2, outs),
		"fewer outputs":     AckPublishChecksum(ConsumerID{1}, 1, outs[:1]),
		"another queue":     AckPublishChecksum(ConsumerID{1}, 1, []Output{{"a", ms}, {"c", ms}}),
		"another message":   AckPublishChecksum(ConsumerID{1}, 1, []Output{{"a", ms}, {"b", []Message{{Body: []byte("ho")}}}}),
		"no output":         AckPublishChecksum(ConsumerID{1}, 1, nil),
		"the publish alone": PublishChecksum("a", ms),
	} {
		if other, taken := sums[sum]; taken {
			t.Errorf("%s has the checksum of %s", name, other)
		}
		sums[sum] = name
	}
}

func TestValidQueueName(t *testing.T) {
	for _, good := range []string{"a", "orders", "A-Z_0.9", strings.Repeat("q", 255)} {
		if !ValidQueueName(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "ä", "a\x00", "orders\n", strings.Repeat("q", 256)} {
		if ValidQueueName(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestPublishChecksum_SeesEveryField changes each thing a producer decides.
func TestPublishChecksum_SeesEveryField(t *testing.T) {
	base := func() []Message {
		return []Message{
			{Body: []byte("one"), BizID: "b1", Headers: []Header{{"n", "v"}}, OrderingKey: "k", Priority: 1, Delay: 2, DeliverAt: 3, TTL: 4},
			{Body: []byte("two")},
		}
	}
	sums := map[uint64]string{PublishChecksum("q", base()): "base"}
	add := func(name string, sum uint64) {
		if other, taken := sums[sum]; taken {
			t.Errorf("%s has the checksum of %s", name, other)
		}
		sums[sum] = name
	}
	add("queue", PublishChecksum("r", base()))
	add("fewer messages", PublishChecksum("q", base()[:1]))
	for name, change := range map[string]func(m []Message){
		"body":              func(m []Message) { m[0].Body = []byte("onf") },
		"body split":        func(m []Message) { m[0].Body, m[0].BizID = []byte("on"), "eb1" },
		"biz-id":            func(m []Message) { m[0].BizID = "b2" },
		"header name":       func(m []Message) { m[0].Headers[0].Name = "m" },
		"header value":      func(m []Message) { m[0].Headers[0].Value = "w" },
		"header more":       func(m []Message) { m[0].Headers = append(m[0].Headers, Header{}) },
		"ordering key":      func(m []Message) { m[0].OrderingKey = "l" },
		"priority":          func(m []Message) { m[0].Priority++ },
		"delay":             func(m []Message) { m[0].Delay++ },
		"deliver at":        func(m []Message) { m[0].DeliverAt++ },
		"ttl":               func(m []Message) { m[0].TTL++ },
		"order of messages": func(m []Message) { m[0], m[1] = m[1], m[0] },
	} {
		m := base()
		change(m)
		add(name, PublishChecksum("q", m))
	}
	bytesOf := "\x06\x00\x00\x00\x00\x00\x00\x00orders" + "\x01\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00hi" + "\x03\x00\x00\x00\x00\x00\x00\x00o-1" + strings.Repeat("\x00", 48)
	if xxhash.Sum64String(bytesOf) != 0xdcddb4d1611ef828 {
		t.Error("the known checksum is not of the known bytes")
	}
	if got := PublishChecksum("orders", []Message{{Body: []byte("hi"), BizID: "o-1"}}); got != 0xdcddb4d1611ef828 {
		t.Errorf("the checksum of a known publish is %#x", got)
	}
}
