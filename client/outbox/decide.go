package outbox

import (
	"errors"
	"fmt"
	"slices"
)

// Resend makes held entries wait to be sent again, under new sequences. Of those
// that may be stored already that may store them a second time, and so wants
// MayBeStoredTwice. They keep their numbers, and go behind all that was sent since.
// All of them or none: the error is ErrNoEntry or ErrRisk.
func (f *File) Resend(risk Risk, entries ...Number) error {
	return f.decide(decision{resend: true, risk: risk, entries: entries})
}

// Discard removes held entries, which may lose those that are not stored for
// ever, and so wants MayNeverBeStored. All of them or none, as for Resend.
func (f *File) Discard(risk Risk, entries ...Number) error {
	return f.decide(decision{risk: risk, entries: entries})
}

func (f *File) decide(d decision) error {
	count := f.count
	err := f.update(func(c *contents) error {
		if err := c.check(&d); err != nil {
			return err
		}
		return c.decide(d, &count)
	})
	if err == nil {
		f.count = count
	}
	return err
}

// decision is what somebody wants of held entries.
type decision struct {
	resend  bool // else discard
	risk    Risk
	entries []Number
}

// check says whether d may be done, and makes each entry in it single.
func (c *contents) check(d *decision) error {
	d.entries = slices.Compact(slices.Sorted(slices.Values(d.entries)))
	for _, n := range d.entries {
		v := c.held.Get(key(n))
		if v == nil {
			return fmt.Errorf("%w: entry %d is not held", ErrNoEntry, n)
		}
		h, err := decodeHold(v)
		switch {
		case err != nil:
			return err
		case d.resend && h.reason.MayBeStored() && d.risk != MayBeStoredTwice:
			return fmt.Errorf("%w: entry %d may be stored already: sent again it may be stored twice", ErrRisk, n)
		case !d.resend && d.risk != MayNeverBeStored:
			return fmt.Errorf("%w: entry %d may not be stored: discarded it never will be", ErrRisk, n)
		}
	}
	return nil
}

// decide does what check has found to be right.
func (c *contents) decide(d decision, count *counts) error {
	for _, n := range d.entries {
		h, err := decodeHold(c.held.Get(key(n)))
		if err != nil {
			return err
		}
		if d.resend {
			count.waiting++
			err = c.waiting.Put(key(n), sumID(h.id))
		} else {
			count.bytes -= len(c.entries.Get(key(n)))
			err = c.entries.Delete(key(n))
		}
		count.held--
		if err = errors.Join(err, c.held.Delete(key(n))); err != nil {
			return err
		}
	}
	return nil
}
