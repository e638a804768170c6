// Package watermill makes onceq a Pub/Sub of Watermill
// (github.com/ThreeDotsLabs/watermill).
//
//	c, err := client.Dial(ctx, "onceq://h1:7450,h2:7450")
//	pub := onceqmill.NewPublisher(c, onceqmill.PublisherConfig{Queue: &client.QueueSettings{}})
//	sub := onceqmill.NewSubscriber(c, onceqmill.SubscriberConfig{Queue: &client.QueueSettings{}})
//	router.AddHandler("bill", "orders", sub, "invoices", pub, handler)
//
// A topic is a queue. The subscribers of a topic share its messages: each message
// is for one of them. There are no consumer groups: who needs the same messages for
// two ends publishes them to two topics.
//
// # What becomes of a message
//
//	watermill    onceq
//	Payload      Body
//	UUID         BizID; a message without a biz-id gets its place, such as "orders/17"
//	Metadata     Headers, sorted by name; of a name that a sender has repeated the
//	             last value counts
//	Context      nothing of it; its end ends Publish
//
// The UUID is the biz-id because both say the same: this is that message again. What
// is published again with its UUID, by a handler that ran twice, say, is recognised by
// onceq/client/inbox and found by biz-id in every listing. An ordering key, a
// priority or a delay come from PublisherConfig.Message, which may set whatever a
// client.Message has.
//
// # Publish
//
// The messages of one Publish are stored all or none, in one step, and once: the
// client retransmits and the cluster removes what came twice. nil means that they are
// on the disks of a majority. Publish waits for that as long as it takes, a new leader
// included, unless a message's context or PublisherConfig.Timeout ends it; then the
// error may be client.ErrOutcomeUnknown, and to publish again may store a second copy.
//
// # Ack and Nack
//
// A subscription hands out one message at a time; the next comes when the first is
// acked or nacked. So one subscriber gets a topic in order, and several subscribers
// are how to work in parallel. While a message waits for its Ack its lease is kept
// alive. Ack acks: the message is gone for good once the cluster has committed that,
// which follows in a moment. Nack gives the message back, to be delivered again after
// the queue's backoff, or after SubscriberConfig.NackDelay; it counts as a failed
// attempt, and beyond the queue's delivery limit the message is a dead letter.
//
// A message's context ends with Ack or Nack, with its subscription, and when its lease
// is lost (then its cause is client.ErrLeaseLost).
//
// # Close
//
// Close of a Subscriber ends its subscriptions and closes their channels. The context
// of a message that was handed out ends at once; its Ack or Nack is waited for until
// SubscriberConfig.CloseTimeout, then it is given back, with one more failed attempt; so
// is the one that was waiting to be read from the channel. What was prefetched behind
// it goes back as it came. Close of a Publisher waits for what is being published.
// Neither closes the client.
package watermill
