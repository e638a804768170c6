package format

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var sample = &Message{ID: "orders/17", Queue: "orders", Attempt: 2, BizID: "order-42", Body: []byte("hi"),
	Headers: []Header{{Name: "a", Value: "1"}, {Name: "a", Value: `"2"`}}, PublishedAt: time.Unix(1, 5),
	Failures: 3, OrderingKey: "customer-7", Priority: 4, Dead: &Dead{Reason: "delivery limit reached", LastError: "no luck", Origin: "shop/9", Attempts: 5}}

func TestFormat_Verbs(t *testing.T) {
	for in, want := range map[string]string{
		`%b\n`:         "hi\n",
		`%i %a %b\n`:   "orders/17 2 hi\n",
		`%q|%z|%n|%%`:  "orders|order-42|2|%",
		`%k|%p|%f|%r`:  "customer-7|4|3|delivery limit reached: no luck",
		`%h`:           `[["a","1"],["a","\"2\""]]`,
		`%t`:           "1970-01-01T00:00:01.000000005Z",
		`a\tb\\n\0\r`:  "a\tb\\n\x00\r",
		``:             "",
		`plain`:        "plain",
		"%b\n real nl": "hi\n real nl",
	} {
		f, err := Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if got := string(f.Append(nil, sample)); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestParse_BadFormat_SaysWhat(t *testing.T) {
	for in, want := range map[string]string{`%x`: "no verb %x", `%`: "ends in the middle", `\q`: `no escape \q`, `abc\`: "ends in the middle"} {
		if _, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestFormat_BodyIsNotTouched(t *testing.T) {
	body := "\x00\xff%b\\n"
	f, err := Parse("%b")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, &Message{Body: []byte(body)})); got != body {
		t.Fatalf("got %q", got)
	}
}

func TestAppendJSON_OneLineThatReadsBack(t *testing.T) {
	for _, body := range []string{"hi", "two\nlines", "\xff\x00"} {
		m := *sample
		m.Body = []byte(body)
		b, err := AppendJSON(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(b), "\n") != 1 || b[len(b)-1] != '\n' {
			t.Fatalf("not one line: %q", b)
		}
		var got struct {
			ID      string   `json:"id"`
			Attempt int      `json:"attempt"`
			Body    *string  `json:"body"`
			Base64  []byte   `json:"body_base64"`
			Headers []Header `json:"headers"`
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		text := string(got.Base64)
		if got.Body != nil {
			text = *got.Body
		}
		if text != body || got.ID != "orders/17" || got.Attempt != 2 || len(got.Headers) != 2 {
			t.Fatalf("read back %+v from %s", got, b)
		}
	}
}

// TestAppendJSON_WhatIsNoText_StaysDistinct: who recognises messages by their biz-id must
// not take two for one.
func TestAppendJSON_WhatIsNoText_StaysDistinct(t *testing.T) {
	type ids struct {
		BizID       string `json:"biz_id"`
		BizIDBase64 []byte `json:"biz_id_base64"`
		Key         string `json:"ordering_key"`
		KeyBase64   []byte `json:"ordering_key_base64"`
		Headers     []struct {
			Value  string `json:"value"`
			Base64 []byte `json:"value_base64"`
		} `json:"headers"`
	}
	for _, id := range []string{"\xff", "\xfe\x00", "order-7"} {
		m := *sample
		m.BizID, m.OrderingKey, m.Headers = id, id, []Header{{Name: "h", Value: id}}
		b, err := AppendJSON(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		var got ids
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for what, is := range map[string]string{
			"biz-id": got.BizID + string(got.BizIDBase64), "ordering key": got.Key + string(got.KeyBase64),
			"header": got.Headers[0].Value + string(got.Headers[0].Base64),
		} {
			if is != id {
				t.Errorf("%s %q reads back as %q: %s", what, id, is, b)
			}
		}
	}
	if m := *sample; m.Headers[0].Base64 != "" {
		t.Error("the message itself was changed")
	}
}
