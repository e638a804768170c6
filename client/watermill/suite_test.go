package watermill

import (
	"os"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"go.uber.org/goleak"

	"onceq/client"
)

// restartArg makes this binary the command that restarts the leader.
const restartArg = "restart-the-leader"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == restartArg {
		askForRestart(os.Getenv(restartEnv))
		return
	}
	// The suite leaves these behind: the one that collects what TestReconnect has
	// published waits for ever.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/pubsub/tests.TestReconnect.func2"))
}

// features are what the suite is to test. There are no consumer groups, and who
// subscribes later gets what is left: a queue gives each message to one consumer.
func features(exactlyOnce bool) tests.Features {
	return tests.Features{
		ConsumerGroups:                      false,
		ExactlyOnceDelivery:                 exactlyOnce,
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,
		Persistent:                          true,
		RestartServiceCommand:               []string{os.Args[0], restartArg},
		NewSubscriberReceivesOldMessages:    false,
	}
}

// The suite of Watermill on three nodes, one of which is killed in the middle.
// With exactlyOnce it counts a message that comes twice as a failure, but skips what
// closes subscribers in the middle; without, the other way round.
func suite(t *testing.T, exactlyOnce bool) {
	p := startProcesses(t)
	c := p.client(t)
	p.serveRestarts(t, c)
	pubSub := func(t *testing.T) (message.Publisher, message.Subscriber) {
		queue := &client.QueueSettings{}
		pub, sub := NewPublisher(c, PublisherConfig{Queue: queue}), NewSubscriber(c, SubscriberConfig{Queue: queue, NackDelay: -1, CloseTimeout: -1})
		if strings.Contains(t.Name(), "/TestReconnect/") {
			return pub, lastWaits{sub, t}
		}
		return pub, sub
	}
	group := func(t *testing.T, _ string) (message.Publisher, message.Subscriber) { return pubSub(t) }
	// A group of its own: its parallel tests end before the cluster does.
	t.Run("suite", func(t *testing.T) { tests.TestPubSub(t, features(exactlyOnce), pubSub, group) })
}

func TestExactlyOnce(t *testing.T) { suite(t, true) }

func TestAtLeastOnce(t *testing.T) { suite(t, false) }
