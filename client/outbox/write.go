package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"onceq/client"
)

// write is the transaction. What it changes in memory is told nobody before it is on
// disk, and is of no use to anybody if it never is.
func (b *Outbox) write(f *contents, c *commit) error {
	for _, p := range c.puts {
		n, err := f.entries.NextSequence()
		if err != nil {
			return err
		}
		p.number = Number(n)
		v := p.record.encode()
		if err := errors.Join(f.entries.Put(key(p.number), v), f.waiting.Put(key(p.number), nil)); err != nil {
			return err
		}
		c.count.waiting++
		c.count.bytes += len(v)
	}
	before := c.count
	for _, o := range c.orders {
		if err := b.obey(f, c, o); err != nil {
			return err
		}
	}
	for _, a := range c.news.answers {
		if err := b.settle(f, c, a); err != nil {
			return err
		}
	}
	if o := c.news.opened; o != nil {
		if err := b.resume(f, c, o); err != nil {
			return err
		}
	}
	c.freed = counts{waiting: before.entries() - c.count.entries(), bytes: before.bytes - c.count.bytes}
	if b.line == nil {
		return nil
	}
	return b.assign(f, c)
}

// obey does what somebody has decided. What he may not decide is his error.
func (b *Outbox) obey(f *contents, c *commit, o *order) error {
	if o.err = f.check(&o.decision); o.err != nil {
		return nil
	}
	for _, n := range o.entries {
		if o.resend {
			c.resent = append(c.resent, n)
		} else {
			c.discarded++
			c.results = append(c.results, Result{Number: n, Err: ErrDiscarded})
		}
	}
	return f.decide(o.decision, &c.count)
}

// settle writes the outcome of one entry.
func (b *Outbox) settle(f *contents, c *commit, a answer) error {
	e := a.entry
	v := judge(a.err)
	if v.what != isOpen {
		e.settled = true
		e.line.n--
		e.line.bytes -= e.bytes
	}
	switch v.what {
	case isStored:
		at := client.MessageID{
			Incarnation: e.id.Session.Incarnation, QueueNumber: a.stored.Queue, Queue: b.queue, Lane: a.stored.Lane, Offset: a.stored.Offset,
		}
		return b.drop(f, c, e.number, client.Receipt{ID: e.id, Message: at, Duplicate: a.stored.Duplicate, Attempts: a.stored.Attempts})
	case isHeld:
		return b.hold(f, c, e.number, e.id, v)
	case isUnsent:
		return f.unsend(c, e.number)
	}
	return nil // its session has ended: the next one decides
}

func (b *Outbox) drop(f *contents, c *commit, n Number, r client.Receipt) error {
	c.count.sent--
	c.count.bytes -= len(f.entries.Get(key(n)))
	c.stored++
	if r.Duplicate {
		c.duplicates++
	}
	c.results = append(c.results, Result{Number: n, Receipt: r})
	return errors.Join(f.entries.Delete(key(n)), f.sent.Delete(key(n)))
}

func (b *Outbox) hold(f *contents, c *commit, n Number, id client.InnerMsgID, v verdict) error {
	c.count.sent--
	c.count.held++
	c.results = append(c.results, Result{Number: n, Err: &HeldError{Number: n, ID: id, Reason: v.reason, Text: v.text}})
	h := hold{reason: v.reason, when: time.Now(), id: id, text: v.text}
	return errors.Join(f.held.Put(key(n), h.encode()), f.sent.Delete(key(n)))
}

// unsend makes an entry wait of which it is known that no copy is stored or will be.
func (f *contents) unsend(c *commit, n Number) error {
	c.count.sent--
	c.count.waiting++
	return errors.Join(f.waiting.Put(key(n), nil), f.sent.Delete(key(n)))
}

// resume takes what was sent before into the session that was opened. Entries of
// other sessions have their verdict; none is sent again without somebody's decision.
func (b *Outbox) resume(f *contents, c *commit, o *opened) error {
	sent := map[Number]client.InnerMsgID{} // changing a bucket moves its cursors
	err := f.sent.ForEach(func(k, v []byte) (err error) {
		sent[number(k)], err = decodeSummedID(v)
		return err
	})
	for n, id := range sent {
		if err != nil {
			return err
		}
		v, judged := o.verdicts[n]
		switch {
		case id.Session == o.session.ID():
			err = b.again(f, c, n, id)
		case !judged:
			err = fmt.Errorf("entry %d of %v has no verdict", n, id)
		case v.what == isStored:
			err = b.drop(f, c, n, v.receipt)
		case v.what == isUnsent:
			err = f.unsend(c, n)
		default:
			err = b.hold(f, c, n, id, v)
		}
	}
	l := b.line
	slices.SortFunc(l.open, func(x, y *sending) int { return cmp.Compare(x.id.Sequence, y.id.Sequence) })
	c.fresh = append(c.fresh, l.open...)
	if l.n > 0 {
		l.next = max(l.next, l.open[l.n-1].id.Sequence+1)
	}
	b.file.cluster = o.cluster
	return errors.Join(err, f.root.Put(clusterKey, []byte(o.cluster)))
}

// again puts an entry into the line under the sequence that it has.
func (b *Outbox) again(f *contents, c *commit, n Number, id client.InnerMsgID) error {
	r, err := decodeRecord(f.entries.Get(key(n)))
	if err != nil {
		return fmt.Errorf("entry %d: %w", n, err)
	}
	b.line.add(&sending{number: n, id: id, bytes: r.size(), publish: r.publish, resent: true})
	return nil
}

// assign gives sequences to entries that wait, the oldest first.
func (b *Outbox) assign(f *contents, c *commit) error {
	l := b.line
	var taken []*sending
	at := f.waiting.Cursor()
	for k, _ := at.First(); k != nil && l.n < b.o.inFlight && l.bytes < inFlightBytesMax; k, _ = at.Next() {
		r, err := decodeRecord(f.entries.Get(k))
		if err != nil {
			return fmt.Errorf("entry %d: %w", number(k), err)
		}
		e := &sending{
			number: number(k), bytes: r.size(), publish: r.publish,
			id: client.InnerMsgID{Session: l.session.ID(), Sequence: l.next},
		}
		l.next++
		l.add(e)
		taken = append(taken, e)
	}
	for _, e := range taken { // changing a bucket moves its cursors
		k := key(e.number)
		if err := errors.Join(f.sent.Put(k, sumID(e.id)), f.waiting.Delete(k)); err != nil {
			return err
		}
	}
	c.fresh = append(c.fresh, taken...)
	c.count.waiting -= len(taken)
	c.count.sent += len(taken)
	return nil
}
