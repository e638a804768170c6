// Package inbox makes a consumer's side of a message happen once.
//
// The cluster stores a message once and hands it out until somebody acks it. It
// cannot do more: a consumer that dies after its work and before its ack looks
// like one that died before its work, so the message comes again, with an attempt
// above 1. A sender, too, may publish the same order twice, because it did not
// trust its own notes after a crash. Both look the same to the program: a message
// whose work is done already. An inbox remembers what was done, by the biz-id
// that the sender gave, and acks such a message without calling the handler.
//
//	err := c.Consume(ctx, "orders", inbox.SQL(db, inbox.PostgreSQL,
//		func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
//			_, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + $1 ...", ...)
//			return err
//		}))
//
// # Which one
//
// What counts is where the effects of a handler go.
//
//   - Into an SQL database: SQL. The row that remembers the message and the
//     effects commit in one transaction, and the ack goes out after it. Wherever
//     the process dies, either both are there or none is. This is the only one of
//     the three that has no gap.
//   - Anywhere else, such as a payment provider or a mail server: Handler with
//     Bolt. The message is remembered, on the disk of this machine, when the handler
//     has returned. A crash between the two runs the handler again, so the gap is as
//     long as one fsync, and an effect that must not happen twice needs an idempotency
//     key at the other end: the biz-id is one.
//   - Effects that vanish with the process (a cache, a counter): Handler with
//     Memory.
//
// A crash anywhere, for each of them:
//
//	                           SQL         Bolt            Memory
//	before the handler         runs once   runs once       runs once
//	in the handler             runs once   runs again      runs again
//	handler done, not noted    -           runs again      runs again
//	noted, not acked           runs once   runs once       runs again
//
// where "runs once" means that its effects are there once in the end.
//
// # What is the same message
//
// Two deliveries are the same message when they have the same biz-id, came from
// queues of the same name and are handled for the same consumer group
// (WithGroup). The biz-id is the sender's: two publishes with the same biz-id are
// the same to an inbox even though the cluster stores both, and the same after a
// queue was created anew or the cluster was restored from a backup. So a sender
// must not use a biz-id for two things that are to happen.
//
// A message without a biz-id is known by its place: the cluster's incarnation, the
// queue's number, lane and offset, which no other message ever has. That
// catches every redelivery, but not a sender who publishes twice, nor messages that
// a restore of the cluster has brought back, nor one that has been in another queue
// meanwhile and was sent back from there (a dead letter after a redrive, a move by
// command): its place is another then. Where that matters, set a biz-id.
//
// The group is the name of what is done with the messages, such as "payments":
// programs that share a store and handle the same messages for different ends need
// different groups. The processes of one program need the same.
//
// # At the same time
//
// Of two deliveries of the same message at the same time the second waits until
// the first has ended, and then is acked, or handled if the first has failed. With
// Memory and Bolt that holds within the process, which is all who can use the store.
// With SQL it holds for everybody who uses the table: the database makes the second
// insert wait.
//
// # Failing
//
// A handler's error is passed on to Consume as it is (client.RetryAfter works)
// and nothing is remembered; nor is a panic. When the store itself fails the
// message is given back and comes again.
//
// An inbox acks what is done itself and does not wait for the answer: an ack that
// is lost leads to a redelivery, which is recognised. A handler must not ack its
// message; the ack would come before the note.
//
// # How long to remember
//
// A store that forgets lets a late copy through. A copy may come as long as its
// message is in the queue, which is as long as no consumer was there, and as long as
// the sender may publish it again. SQL keeps everything unless WithTTL says
// otherwise; 100 million rows of usual ids take some 15 GB with their indexes. What
// is older than the TTL is removed a bounded number at a time, beside the messages
// that are handled, and at the earliest a while after the start: when all consumers
// were down for longer than the TTL, the messages of which only the ack was lost are
// the first that come, and they still find their notes. What is past its TTL and not
// removed yet is still known.
package inbox
