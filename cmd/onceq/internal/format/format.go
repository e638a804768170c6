// Package format writes a message the way a user's format string asks.
package format

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Message is what a format can show.
type Message struct {
	ID          string
	Queue       string
	Attempt     int
	BizID       string
	Headers     []Header
	Body        []byte
	PublishedAt time.Time
	Failures    int
	OrderingKey string
	Priority    int
	Dead        *Dead // nil unless it is a dead letter
}

// Dead is what a dead letter has behind it.
type Dead struct {
	Reason     string `json:"reason"`
	FirstError string `json:"first_error,omitempty"`
	LastError  string `json:"last_error,omitempty"`
	Origin     string `json:"origin"`
	Attempts   int    `json:"attempts"`
}

// Header is one name and value.
type Header struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Base64 string `json:"value_base64,omitempty"` // in JSON, in place of a value that is not UTF-8
}

// Format is a parsed format string.
type Format struct {
	parts []part
}

// part is literal text, or a verb.
type part struct {
	verb byte // 0: text
	text string
}

// Verbs names the verbs, for help texts.
const Verbs = "%i id  %q queue  %a attempt  %z biz-id  %k ordering key  %p priority  %f failures  %r why it is a dead letter  %h headers  %t published at  %n bytes of body  %b body  %% percent; \\n \\t \\r \\0 \\\\"

// Parse reads a format string.
func Parse(s string) (Format, error) {
	var f Format
	var text []byte
	flush := func() {
		if len(text) > 0 {
			f.parts = append(f.parts, part{text: string(text)})
			text = nil
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' && c != '\\' {
			text = append(text, c)
			continue
		}
		i++
		if i == len(s) {
			return Format{}, fmt.Errorf("format %q ends in the middle of %q", s, string(c))
		}
		if c == '\\' {
			e, ok := escapes[s[i]]
			if !ok {
				return Format{}, fmt.Errorf("format %q: no escape \\%c", s, s[i])
			}
			text = append(text, e)
			continue
		}
		switch s[i] {
		case '%':
			text = append(text, '%')
		case 'i', 'q', 'a', 'z', 'k', 'p', 'f', 'r', 'h', 't', 'n', 'b':
			flush()
			f.parts = append(f.parts, part{verb: s[i]})
		default:
			return Format{}, fmt.Errorf("format %q: no verb %%%c (there are %s)", s, s[i], Verbs)
		}
	}
	flush()
	return f, nil
}

var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '0': 0, '\\': '\\'}

// Append appends m to b.
func (f Format) Append(b []byte, m *Message) []byte {
	for _, p := range f.parts {
		switch p.verb {
		case 0:
			b = append(b, p.text...)
		case 'i':
			b = append(b, m.ID...)
		case 'q':
			b = append(b, m.Queue...)
		case 'a':
			b = strconv.AppendInt(b, int64(m.Attempt), 10)
		case 'z':
			b = append(b, m.BizID...)
		case 'k':
			b = append(b, m.OrderingKey...)
		case 'p':
			b = strconv.AppendInt(b, int64(m.Priority), 10)
		case 'f':
			b = strconv.AppendInt(b, int64(m.Failures), 10)
		case 'r':
			b = append(b, m.Dead.why()...)
		case 'h':
			b = appendHeaders(b, m.Headers)
		case 't':
			b = m.PublishedAt.UTC().AppendFormat(b, time.RFC3339Nano)
		case 'n':
			b = strconv.AppendInt(b, int64(len(m.Body)), 10)
		case 'b':
			b = append(b, m.Body...)
		}
	}
	return b
}

// why is the reason, with the last error if there is one; "" when it is no dead
// letter.
func (d *Dead) why() string {
	switch {
	case d == nil:
		return ""
	case d.LastError == "":
		return d.Reason
	}
	return d.Reason + ": " + d.LastError
}

// appendHeaders writes headers as one JSON array of pairs, since names may
// repeat and their order counts.
func appendHeaders(b []byte, hs []Header) []byte {
	b = append(b, '[')
	for i, h := range hs {
		if i > 0 {
			b = append(b, ',')
		}
		j, _ := json.Marshal([2]string{h.Name, h.Value}) // strings always marshal
		b = append(b, j...)
	}
	return append(b, ']')
}

// line is the shape of one line of JSON output.
type line struct {
	ID          string    `json:"id"`
	Queue       string    `json:"queue"`
	Attempt     int       `json:"attempt"`
	PublishedAt time.Time `json:"published_at"`
	Keys
	Priority   int      `json:"priority,omitempty"`
	Failures   int      `json:"failures,omitempty"`
	Dead       *Dead    `json:"dead_letter,omitempty"`
	Headers    []Header `json:"headers,omitempty"`
	Body       *string  `json:"body,omitempty"`
	BodyBase64 *string  `json:"body_base64,omitempty"`
}

// Keys are what a consumer recognises a message by, as they stand in JSON.
type Keys struct {
	BizID       string `json:"biz_id,omitempty"`
	BizIDBase64 string `json:"biz_id_base64,omitempty"`
	OrderingKey string `json:"ordering_key,omitempty"`
	KeyBase64   string `json:"ordering_key_base64,omitempty"`
}

// KeysOf are those of a message.
func KeysOf(bizID, orderingKey string) (k Keys) {
	k.BizID, k.BizIDBase64 = text(bizID)
	k.OrderingKey, k.KeyBase64 = text(orderingKey)
	return k
}

// JSON is h as it stands in JSON.
func (h Header) JSON() Header {
	h.Value, h.Base64 = text(h.Value)
	return h
}

// text is s where a JSON string can carry it, else its base64.
func text(s string) (plain, inBase64 string) {
	if utf8.ValidString(s) {
		return s, ""
	}
	return "", base64.StdEncoding.EncodeToString([]byte(s))
}

// AppendJSON appends m as one line of JSON. A body, biz-id, ordering key or value of a
// header that is not UTF-8 comes as body_base64 and so on, since a JSON string cannot
// carry it unchanged: two of them would look the same to who recognises by them.
func AppendJSON(b []byte, m *Message) ([]byte, error) {
	l := line{ID: m.ID, Queue: m.Queue, Attempt: m.Attempt, PublishedAt: m.PublishedAt.UTC(), Priority: m.Priority, Failures: m.Failures, Dead: m.Dead}
	l.Keys = KeysOf(m.BizID, m.OrderingKey)
	for _, h := range m.Headers {
		l.Headers = append(l.Headers, h.JSON())
	}
	if utf8.Valid(m.Body) {
		s := string(m.Body)
		l.Body = &s
	} else {
		s := base64.StdEncoding.EncodeToString(m.Body)
		l.BodyBase64 = &s
	}
	j, err := json.Marshal(l)
	if err != nil {
		return b, fmt.Errorf("message %s as JSON: %w", m.ID, err)
	}
	return append(append(b, j...), '\n'), nil
}
