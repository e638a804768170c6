package watermill

import (
	"context"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The suite's TestReconnect compares what its subscriber got with what its
// publishers have noted after Publish, and does not wait for them to have noted it. Here
// a message is often at its consumer before the answer is at its producer. So the last
// message is handed out when the publishers have ended, which the dump of all
// goroutines shows: their function and its collector's are named there.
const (
	reconnectMessages   = 10_000
	reconnectPublishers = "pubsub/tests.TestReconnect.func3("
	reconnectCollector  = "pubsub/tests.TestReconnect.func2("
)

// collecting is the collector with nothing to do.
var collecting = regexp.MustCompile(`goroutine \d+ \[chan receive[^\]]*\]:\n[^\n]*` + regexp.QuoteMeta(reconnectCollector))

// lastWaits holds the last message of TestReconnect back until all are noted.
type lastWaits struct {
	message.Subscriber
	t *testing.T
}

func (s lastWaits) SubscribeInitialize(topic string) error {
	return s.Subscriber.(message.SubscribeInitializer).SubscribeInitialize(topic)
}

func (s lastWaits) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := s.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		seen, met := map[string]bool{}, false
		for m := range in {
			if seen[m.UUID] = true; len(seen) == reconnectMessages/2 {
				met = strings.Contains(goroutines(), reconnectPublishers)
			}
			if len(seen) == reconnectMessages {
				if !met {
					s.t.Error("the suite has changed: its publishers were never seen")
				}
				s.allNoted()
			}
			select {
			case out <- m:
			case <-m.Context().Done():
			}
		}
	}()
	return out, nil
}

func (s lastWaits) allNoted() {
	for deadline := time.Now().Add(bound); ; time.Sleep(10 * time.Millisecond) {
		dump := goroutines()
		if !strings.Contains(dump, reconnectPublishers) && collecting.MatchString(dump) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("the suite's publishers have not ended:\n%s", dump)
			return
		}
	}
}

func goroutines() string {
	b := make([]byte, 8<<20)
	return string(b[:runtime.Stack(b, true)])
}
