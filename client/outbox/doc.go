// Package outbox publishes messages that survive a crash of the producer's process.
//
//	ob, err := outbox.Open("/var/lib/shop/orders.outbox", "orders", outbox.WithURL("onceq://h1:7450,h2:7450"))
//	n, err := ob.Publish(ctx, client.Message{Body: b, BizID: "order-42"})
//	defer ob.Close()
//
// Publish returns when the message is on this machine's disk, whether a cluster can
// be reached or not. Behind it the outbox sends what is in its file, in the order in
// which it was taken, and removes what is stored. From the moment in which Publish
// has returned nil the message is stored once: whatever crashes, however often, and
// however long the cluster is away.
//
// A usual client.Producer is enough when somebody else repeats the publish after a
// crash, such as the user at his browser, or the queue that the program itself reads
// from. An outbox is for a program that is the only one who knows.
//
// # How it is done
//
// The file is the identity of the producer: it has the name of a session, which
// never expires by time, and each entry has its sequence in that session, which is
// on disk before a copy is sent. After a crash the same entries go out again under
// the same sequences, and the cluster answers a copy that it has with what became of
// the first. It forgets that only when the outbox says so, by the floor that goes
// with each publish; and the outbox raises its floor past an entry only when the
// outcome is on disk. There is no step between which a crash makes two of a message,
// or none.
//
//	                        after a crash here
//	entry on disk           sent at the next start
//	sequence on disk        sent under that sequence, maybe again
//	sent                    the cluster answers as it did, or would have done
//	outcome on disk         gone from the outbox; nothing is sent again
//
// # What the disk must do
//
// A write returns after two calls of fdatasync (bbolt's data, then its root), and
// publishes that come at the same time share them: one goroutine gets as many
// publishes a second as the disk takes pairs of syncs, a hundred get almost a
// hundred times that. The file itself, with its name in its folder, is synced when
// it is made. So after a power cut everything is there that Publish has returned
// for, on a disk that keeps what it says it has synced, and on a local file system:
// over networks neither that nor the lock on the file can be relied upon. After a
// failed write nothing that the file system says can be trusted: the outbox takes
// and sends nothing more (ErrDisk), and goes on from what is really there when it is
// opened again. A file that is damaged is found when it is opened (ErrCorrupt).
//
// # What nobody can know
//
// Three things take away the cluster's knowledge of what was sent: the session is
// ended by command ("onceq session end"), the cluster is restored from a backup, or
// a copy of the file was used as well and has gone on. What was in flight then may be
// stored or not, and nobody can tell: to send it again may store it twice, to drop it
// may lose it. The outbox does neither. Such entries are held: they stay in the
// file, are shown by Held, and wait for somebody who decides, with Resend or Discard,
// and says by a Risk that he knows what may happen. Entries of which it is known that
// they are not stored, such as those that were never sent, go on by themselves. So do
// those of which the cluster still has a record.
//
// What the cluster refuses for good (larger than it accepts, say) is held as well,
// with the reason Refused: it is not stored, so sending it again is no risk. What it
// refuses for now is tried until it is taken: a full queue, a queue that does not
// exist yet, a disk that is almost full.
//
// For operators "onceq outbox list|held|resend|discard FILE" does the same to the file
// of a program that does not run.
//
// # Two at once
//
// The file is locked while it is open: a second process gets ErrInUse. A copy of it,
// on another machine or brought back from a backup, has the same session, and the
// cluster lets one process have that: who opens it later. The other is fenced: it
// sends nothing more and takes nothing more (client.ErrFenced), and keeps its entries.
// When it is started again it takes the session back, and what the other has gone
// past by then is held, as below floor. So never run two from copies of one file; what
// happens then is a nuisance for somebody who has to decide, and neither loss nor
// duplicate.
//
// # Order
//
// Entries are stored in the order in which they were taken, over any number of
// restarts, as the messages of a client.Producer are: those of one priority by
// themselves, delayed ones in any. An entry that is held does not hold up those after
// it; when it is resent it comes after them, also those of its ordering key.
//
// # How much it holds
//
// WithEntriesMax and WithBytesMax bound the file; beyond them Publish waits, or fails
// as WithFailWhenFull asks. Memory does not grow with it: only what is in flight is in
// memory.
//
// # Trade-offs
//
// A Publish costs a commit of the file, and an outcome another, so an outbox is
// slower than a Producer, by how much depends on the disk. To keep the floor an entry
// stays in flight until its outcome is on disk, which is one commit longer.
//
// The oldest entry that a queue does not take holds up the others of its outbox. One
// for each queue keeps them apart; that an outbox is for one queue is the reason that
// there is nothing to configure about it.
package outbox
