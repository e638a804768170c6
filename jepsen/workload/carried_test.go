package workload

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func TestContent_IsThatOfItsIDAndTheClusterTakesIt(t *testing.T) {
	t.Parallel()
	most := map[string]int{}
	for i := range 700 {
		id := fmt.Sprintf("r1-p1-%d", i)
		m := wireContent(id)
		if !reflect.DeepEqual(m, wireContent(id)) {
			t.Fatalf("%s: the content of an id is not always the same", id)
		}
		if got := idOfBizID(m.BizID); got != id {
			t.Fatalf("%s: the biz-id is of %q", id, got)
		}
		most["biz-id"] = max(most["biz-id"], len(m.BizID))
		for _, h := range m.Headers {
			most["name"], most["value"] = max(most["name"], len(h.Name)), max(most["value"], len(h.Value))
		}
		messages := []wire.Message{m}
		frame := wire.PublishFrame{Incarnation: 1, Session: 1, Epoch: 1, Floor: 1, Queue: "jepsen", Publishes: []wire.Publish{{
			Sequence: 1, Checksum: wire.PublishChecksum("jepsen", messages), Messages: messages,
		}}}
		w := &pack.Writer{}
		frame.Append(w)
		got, err := wire.DecodePublishFrame(w.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if c := carried(got.Publishes[0].Messages[0]); c != carried(m) {
			t.Errorf("%s: handed in with %s, arrived with %s", id, carried(m), c)
		}
	}
	want := map[string]int{"biz-id": wire.BizIDBytesMax, "name": wire.HeaderNameBytesMax, "value": wire.HeaderValueBytesMax}
	if !reflect.DeepEqual(most, want) {
		t.Errorf("the largest are %v, want %v", most, want)
	}
}

func TestCarried_DiffersWhenAnythingDoes(t *testing.T) {
	t.Parallel()
	m := wire.Message{BizID: "ab", Headers: []wire.Header{{Name: "n", Value: "v"}, {Name: "m", Value: "w"}}, OrderingKey: "k", Priority: 3}
	seen := []string{carried(m)}
	for name, change := range map[string]func(m *wire.Message){
		"the biz-id":                  func(m *wire.Message) { m.BizID = "ac" },
		"the biz-id is cut":           func(m *wire.Message) { m.BizID = "a" },
		"no header":                   func(m *wire.Message) { m.Headers = nil },
		"one header less":             func(m *wire.Message) { m.Headers = m.Headers[:1] },
		"a name":                      func(m *wire.Message) { m.Headers[0].Name = "o" },
		"a value":                     func(m *wire.Message) { m.Headers[1].Value = "x" },
		"the order of headers":        func(m *wire.Message) { slices.Reverse(m.Headers) },
		"a part of a name is a value": func(m *wire.Message) { m.Headers[0] = wire.Header{Name: "n=v,", Value: ""} },
		"no ordering key":             func(m *wire.Message) { m.OrderingKey = "" },
		"the priority":                func(m *wire.Message) { m.Priority = 0 },
	} {
		other := m
		other.Headers = slices.Clone(m.Headers)
		change(&other)
		if c := carried(other); slices.Contains(seen, c) {
			t.Errorf("%s: %s is not another", name, c)
		} else {
			seen = append(seen, c)
		}
	}
	other := m
	other.Body = []byte("the body is compared by itself")
	if c := carried(other); c != seen[0] {
		t.Errorf("%s is another than %s", c, seen[0])
	}
}
