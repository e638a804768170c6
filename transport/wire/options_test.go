package wire

import (
	"strings"
	"testing"
	"time"
)

func TestCheckOptions(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, ms := range map[string][]Message{
		"none":                     {{}},
		"a key and a time to live": {{OrderingKey: "k", TTL: time.Second}},
		"priority and delay":       {{Priority: PriorityMax, Delay: DelayMax, TTL: DelayMax}},
		"priority and deliver-at":  {{Priority: 1, DeliverAt: 1}},
		"a batch of two keys":      {{OrderingKey: "a"}, {OrderingKey: "b"}, {}},
		"at the limits":            {{OrderingKey: long(OrderingKeyBytesMax), BizID: long(BizIDBytesMax), Headers: make([]Header, HeadersMax)}},
	} {
		if err := CheckOptions(ms); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		code Code
		ms   []Message
	}{
		"priority":            {CodeBadOptions, []Message{{Priority: PriorityMax + 1}}},
		"delay":               {CodeBadOptions, []Message{{Delay: DelayMax + 1}}},
		"negative delay":      {CodeBadOptions, []Message{{Delay: -1}}},
		"time to live":        {CodeBadOptions, []Message{{TTL: DelayMax + 1}}},
		"deliver-at":          {CodeBadOptions, []Message{{DeliverAt: -1}}},
		"delay, deliver-at":   {CodeBadOptions, []Message{{Delay: 1, DeliverAt: 1}}},
		"key, priority":       {CodeBadOptions, []Message{{OrderingKey: "k", Priority: 1}}},
		"key, delay":          {CodeBadOptions, []Message{{OrderingKey: "k", Delay: 1}}},
		"key, deliver-at":     {CodeBadOptions, []Message{{OrderingKey: "k", DeliverAt: 1}}},
		"two priorities":      {CodeBadOptions, []Message{{}, {Priority: 1}}},
		"long key":            {CodeTooLarge, []Message{{}, {OrderingKey: long(OrderingKeyBytesMax + 1)}}},
		"long biz-id":         {CodeTooLarge, []Message{{BizID: long(BizIDBytesMax + 1)}}},
		"too many headers":    {CodeTooLarge, []Message{{Headers: make([]Header, HeadersMax+1)}}},
		"long header's name":  {CodeTooLarge, []Message{{Headers: []Header{{Name: long(HeaderNameBytesMax + 1)}}}}},
		"long header's value": {CodeTooLarge, []Message{{Headers: []Header{{Value: long(HeaderValueBytesMax + 1)}}}}},
	} {
		if err := CheckOptions(c.ms); err == nil || err.Code != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
}
