package outbox

import (
	"fmt"

	"go.etcd.io/bbolt"

	"onceq/client"
	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

// Queue is what the entries are published to.
func (f *File) Queue() string { return f.queue }

// Name is the name of the session under which they are.
func (f *File) Name() string { return f.name }

// Cluster is the id of the cluster that they are for, "" while none was reached.
func (f *File) Cluster() string { return f.cluster }

// Counts are how many entries wait, were sent and are held, as of OpenFile and what
// was decided since.
func (f *File) Counts() (waiting, sent, held int) { return f.count.waiting, f.count.sent, f.count.held }

// Bytes is the size of all entries.
func (f *File) Bytes() int { return f.count.bytes }

// Close lets go of the file.
func (f *File) Close() error { return f.db.Close() }

// Entry returns one entry.
func (f *File) Entry(n Number) (e Entry, err error) {
	err = f.view(func(c *contents) error {
		e, err = c.entry(n)
		return err
	})
	return e, err
}

// List returns the entries from a number on, at most limit, in the order in which
// they were taken. It may be used at any time.
func (f *File) List(from Number, limit int) (list []Entry, err error) {
	err = f.view(func(c *contents) error {
		list, err = c.list(c.entries, from, limit)
		return err
	})
	return list, err
}

// Held is List for what is held.
func (f *File) Held(from Number, limit int) (list []Entry, err error) {
	err = f.view(func(c *contents) error {
		list, err = c.list(c.held, from, limit)
		return err
	})
	return list, err
}

// list reads the entries that index names.
func (c *contents) list(index *bbolt.Bucket, from Number, limit int) (list []Entry, err error) {
	at := index.Cursor()
	for k, _ := at.Seek(key(from)); k != nil && len(list) < limit; k, _ = at.Next() {
		e, err := c.entry(number(k))
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
	return list, nil
}

func (c *contents) entry(n Number) (e Entry, err error) {
	b := c.entries.Get(key(n))
	if b == nil {
		return e, fmt.Errorf("%w: %d", ErrNoEntry, n)
	}
	r, err := decodeRecord(b)
	if err != nil {
		return e, fmt.Errorf("entry %d: %w: %v", n, ErrCorrupt, err)
	}
	messages, err := sequenced.Decode(r.publish.Encoded)
	if err != nil {
		return e, fmt.Errorf("entry %d: %w: %v", n, ErrCorrupt, err)
	}
	e = Entry{Number: n, Published: r.taken, Bytes: len(b), Messages: messages.([]client.Message)}
	if v := c.held.Get(key(n)); v != nil {
		h, err := decodeHold(v)
		e.State, e.Reason, e.Text, e.HeldAt, e.ID = Held, h.reason, h.text, h.when, h.id
		return e, err
	}
	v := c.sent.Get(key(n))
	e.State = Sent
	if v == nil {
		v = c.waiting.Get(key(n))
		e.State = Waiting
	}
	e.ID, err = decodeSummedID(v)
	return e, err
}

// asHeld is the error of an entry that is held, nil when it is not.
func (c *contents) asHeld(n Number) (*HeldError, error) {
	v := c.held.Get(key(n))
	if v == nil {
		return nil, nil
	}
	h, err := decodeHold(v)
	return &HeldError{Number: n, ID: h.id, Reason: h.reason, Text: h.text}, err
}

// newest is the number that was given last.
func (f *File) newest() (n Number, err error) {
	err = f.view(func(c *contents) error {
		n = Number(c.entries.Sequence())
		return nil
	})
	return n, err
}

// oldestOpen is the oldest entry that waits or was sent, 0 for none.
func (f *File) oldestOpen() (n Number, err error) {
	err = f.view(func(c *contents) error {
		for _, b := range []*bbolt.Bucket{c.waiting, c.sent} {
			if k, _ := b.Cursor().First(); k != nil && (n == 0 || number(k) < n) {
				n = number(k)
			}
		}
		return nil
	})
	return n, err
}

// sentBefore is what was sent in sessions other than now.
func (f *File) sentBefore(now wire.SessionID) (map[Number]client.InnerMsgID, error) {
	sent := map[Number]client.InnerMsgID{}
	err := f.view(func(c *contents) error {
		return c.sent.ForEach(func(k, v []byte) error {
			id, err := decodeSummedID(v)
			if id.Session != now {
				sent[number(k)] = id
			}
			return err
		})
	})
	return sent, err
}

// known is the cluster that the file belongs to, "" while none was reached.
func (f *File) known() (cluster string) {
	_ = f.view(func(c *contents) error {
		cluster = string(c.root.Get(clusterKey))
		return nil
	})
	return cluster
}
