// Package client is the Go client of onceq, a replicated message queue that
// stores each message once.
//
//	c, err := client.Dial(ctx, "onceq://h1:7450,h2:7450")
//	p, err := c.NewProducer("orders")
//	receipt, err := p.Publish(ctx, client.Message{Body: b, BizID: "order-42"})
//	err = c.Consume(ctx, "orders", handler)
//
// # Two halves
//
// Delivery is made certain by repeating what was not confirmed, and repeating
// makes duplicates. Each half of a message's way removes them by itself.
//
// The upper half, producer to cluster, is this package's work. A Producer holds
// a session and numbers its publishes; a retransmitted copy keeps its number,
// whatever connection or node it goes to, and the cluster stores one. So Publish
// is safe to wait for through lost replies and failed leaders: it repeats until
// there is a definite answer or its context ends. Then
//
//   - nil: stored, on the disks of a majority;
//   - *OutcomeUnknownError: a copy is on its way and may be stored or not. The
//     client stops repeating and seals the publish behind the scenes: from then on
//     it is stored or it never will be. Client.Outcome tells;
//   - any other error: not stored, and never will be by this call.
//
// To call Publish again with the same message after an error of the second kind is
// a new publish, and may store it twice. Look it up first.
//
// The lower half, cluster to consumer, needs the program. A message whose handler
// did not finish, because the process died or took longer than its lease, is
// delivered again, and only the business logic knows what it has done: that is
// what the biz-id is for, which the sender chooses and the cluster carries through
// untouched. Delivery.Attempt is 1 only if nobody has seen the message before.
//
// What Consume does for it: a lost connection, a new leader or a rolling restart
// is no reason to hand a message out again. Leases are kept alive while messages
// wait and while handlers run; a handler is only called with a lease that holds by
// the client's own clock; its context ends when a loss is learned; and Ack says nil
// only when the cluster has committed it.
//
// Receive asks for messages instead of being handed them. Its leases are not kept
// alive, since nobody knows when the program is done: see Delivery.Extend.
//
// # Which way to consume
//
//	           who settles             leases are kept alive   when ctx ends
//	Consume    what the handler returns  by the client           drains, then nil
//	Messages   the loop's body           by the client           the loop ends
//	Receive    the program               by Delivery.Extend      the cause is returned
//
// # How it works
//
// A Client has two links to the leader, each with one connection: one for
// publishes and requests, one for deliveries and acks, so that neither waits
// in the other's socket. A link follows pushed topologies and "not leader"
// answers, whose terms never go back (link.go, topology.go). A connection
// pipelines requests, and when it ends it says of each open request whether it may
// have arrived (conn.go): what was never written is safe to send anew, anything
// else only under the same number.
//
// A producer's publishes wait in two lists: fresh ones without a sequence, and
// open ones, whose head is the floor that goes with each frame (producer.go). A
// frame leaves at once while few are in flight, and collects while more are. After
// any refusal or reconnect all that is open is sent again in order before
// anything new (producer_send.go). A refusal is reported only when every copy ever
// sent has a definite answer; else the sequence is sealed first
// (producer_session.go).
//
// A consumer's deliveries are numbered by the cluster. What has no definite answer
// is listed when the consumer resumes on a new connection, and the reply says what
// became of each (attach.go). Acks are collected while a frame of them is in flight,
// and repeated until they are answered (settle.go).
//
// A Receive is named by its consumer and the delivery number that it expects next,
// and is repeated under the same name until it is answered or given up (receive.go).
//
// An ack-and-publish takes its sequence from one unnamed session that the client
// keeps for all of them, and keeps every other settle off its delivery until its
// outcome is final (chain.go). It is judged by its sequence before its lease, so a
// retry after the lease is gone gets the recorded places. A server takes so many
// bytes of requests at once; large ones beyond that wait in line (line.go).
//
// # Trade-offs
//
// Publishes of one producer share a session, so an unknown outcome holds up what
// comes after it until its seal is answered, usually one round trip. That is the
// price of order; programs that do not need it between two flows use two
// Producers.
//
// A queue that is full refuses what is in flight behind the refused publish as
// well. Sending it again one by one would store some of it, if a consumer makes
// room at that moment, at the cost of the square of what is in flight.
//
// The client holds up to prefetch messages while handlers run, also when it
// drains. A small WithPrefetch suits slow handlers.
package client
