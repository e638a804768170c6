package outbox

import (
	"fmt"

	"onceq/client/internal/sequenced"
)

// One transaction takes at most so much.
const (
	commitPutsMax  = 4096
	commitBytesMax = 8 << 20
)

// news is what the keeper is told beside puts and orders.
type news struct {
	answers []answer
	opened  *opened       // a session to send through
	ended   chan struct{} // the one before has ended; closed when the keeper knows
}

// answer is the outcome of one publish.
type answer struct {
	entry  *sending
	stored sequenced.Stored
	err    error
}

// opened is a session that was opened, and what was found out about what was sent in
// sessions before it.
type opened struct {
	session  sequenced.Session
	cluster  string
	verdicts map[Number]verdict
}

// commit is one transaction: what goes in, and what is told when it is on disk.
type commit struct {
	puts   []*put
	orders []*order
	news   news

	count   counts // after it
	freed   counts // what has left; entries in waiting
	results []Result
	resent  []Number   // not held any more
	fresh   []*sending // to be sent, by rising sequence

	stored, duplicates, discarded uint64
}

// keep is the keeper: it alone writes the file. Each turn takes all there is to
// write, writes it with one commit, and tells of it after that.
func (b *Outbox) keep() {
	defer close(b.stopped)
	for last := false; !last; {
		c := &commit{count: b.file.count}
		select {
		case p := <-b.puts:
			c.puts = append(c.puts, p)
		case o := <-b.orders:
			c.orders = append(c.orders, o)
		case <-b.wake:
		case <-b.quit:
			last = true
		}
		b.gather(c, last)
		b.turn(c)
	}
}

// gather takes what else there is, up to the limits of a commit.
func (b *Outbox) gather(c *commit, last bool) {
	size := 0
	for _, p := range c.puts {
		size += p.record.size()
	}
	for more := true; more && len(c.puts) < commitPutsMax && size < commitBytesMax; {
		select {
		case p := <-b.puts:
			c.puts = append(c.puts, p)
			size += p.record.size()
		case o := <-b.orders:
			c.orders = append(c.orders, o)
		default:
			more = false
		}
	}
	if !last && b.results.behind() {
		return // the program is slow to take results: what has one stays in flight
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.news, b.news = b.news, news{}
}

// turn writes c and tells of it.
func (b *Outbox) turn(c *commit) {
	if b.refuse(c); b.failed != nil {
		return
	}
	if c.news.ended != nil {
		b.line = nil
		defer close(c.news.ended)
	}
	if o := c.news.opened; o != nil {
		b.line = &line{session: o.session, next: o.session.Next()}
	}
	if len(c.puts)+len(c.orders)+len(c.news.answers) == 0 && c.news.opened == nil && !b.sends(c.count) {
		return
	}
	b.step("before commit")
	err := b.file.update(func(f *contents) error {
		defer b.step("written")
		return b.write(f, c)
	})
	if err != nil {
		b.broken(c, err)
		return
	}
	b.step("committed")
	b.tell(c)
	b.transmit(c)
}

// refuse ends what an outbox that takes nothing more was handed. With a disk that has
// failed that includes decisions, whatever else had ended it before: what it does with
// them nobody can tell.
func (b *Outbox) refuse(c *commit) {
	halted := b.Err()
	if b.failed != nil {
		halted = b.failed
	}
	if halted == nil {
		return
	}
	for _, p := range c.puts {
		p.err = halted
		close(p.done)
	}
	c.puts = nil
	if b.failed != nil {
		for _, o := range c.orders {
			o.err = halted
			close(o.done)
		}
		c.orders = nil
	}
}

// sends says whether entries that wait can be sent.
func (b *Outbox) sends(count counts) bool {
	l := b.line
	return l != nil && count.waiting > 0 && l.n < b.o.inFlight && l.bytes < inFlightBytesMax
}

// tell tells of what is on disk now.
func (b *Outbox) tell(c *commit) {
	b.file.count = c.count
	b.note(c)
	for _, n := range c.resent {
		b.results.open(n)
	}
	b.results.tell(c.results) // before who gave an order hears that it was done
	for _, p := range c.puts {
		close(p.done)
	}
	for _, o := range c.orders {
		close(o.done)
	}
	b.room.give(c.freed.waiting, c.freed.bytes)
	b.step("told")
}

// transmit sends what has its sequence on disk.
func (b *Outbox) transmit(c *commit) {
	l := b.line
	if l == nil {
		return
	}
	l.session.KeepFloor(l.floor())
	b.step("floor raised")
	for _, e := range c.fresh {
		publish := e.publish
		e.publish = sequenced.Publish{}
		l.session.Publish(e.id.Sequence, publish, e.resent, func(s sequenced.Stored, err error) { b.answered(answer{e, s, err}) })
	}
	if len(c.fresh) > 0 {
		b.step("sent")
	}
	if b.sends(c.count) {
		b.kick()
	}
}

// answered is called by the session, which must not wait.
func (b *Outbox) answered(a answer) {
	b.step("answered")
	b.mu.Lock()
	b.news.answers = append(b.news.answers, a)
	b.mu.Unlock()
	b.kick()
}

// note updates what Stats returns.
func (b *Outbox) note(c *commit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.stats
	s.Waiting, s.Sent, s.Held, s.Bytes = c.count.waiting, c.count.sent, c.count.held, c.count.bytes
	s.Published += uint64(len(c.puts))
	s.Stored += c.stored
	s.Duplicates += c.duplicates
	s.Discarded += c.discarded
	s.Commits++
}

// broken: the disk cannot be believed any more. Nothing is taken and nothing sent;
// what is in the file is sent by whoever opens it next.
func (b *Outbox) broken(c *commit, err error) {
	err = fmt.Errorf("%w %s: %w: start again when the disk is well", ErrDisk, b.file.path, err)
	b.o.logger.Error("the outbox takes nothing more", "outbox", b.file.path, "error", err)
	b.failed = err
	b.haltWith(err)
	b.cancel()
	b.line = nil
	b.refuse(c)
}
