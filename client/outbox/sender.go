package outbox

import (
	"errors"
	"fmt"
	"time"

	"onceq/client"
	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

const (
	retryBase = 50 * time.Millisecond
	retryMost = 2 * time.Second
)

// send is the sender: it keeps a session open for the keeper to send through.
func (b *Outbox) send() {
	c := b.o.client
	wait := retryBase
	for b.ctx.Err() == nil {
		var err error
		if c == nil {
			if c, err = client.Dial(b.ctx, b.o.url, b.o.clientOpts...); err != nil {
				c = nil
			} else {
				defer c.Close()
			}
		}
		if err == nil {
			err = b.session(c)
		}
		switch {
		case err == nil:
			wait = retryBase
			continue
		case b.ctx.Err() != nil:
			return
		case errors.Is(err, client.ErrFenced):
			b.o.logger.Error("another process has taken the session: the outbox takes nothing more", "outbox", b.file.path, "session", b.file.name, "error", err)
			b.haltWith(fmt.Errorf("outbox %s: %w", b.file.path, err))
			return
		}
		b.status("", err)
		b.o.logger.Warn("cannot send", "outbox", b.file.path, "reason", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, retryMost)
		case <-b.ctx.Done():
		}
	}
}

// session opens the session, finds out what became of what was sent before, hands
// it to the keeper, and waits until it has ended. The error is nil when the session
// is lost: then there may be a next.
func (b *Outbox) session(c *client.Client) error {
	// A cluster that a backup of the known one was restored in answers for it.
	if other := b.file.known(); other != "" && !sequenced.Was(c, other) {
		return fmt.Errorf("%w: it is for cluster %s, this is cluster %s: %w", ErrMismatch, other, c.Cluster(), client.ErrWrongCluster)
	} else if other != "" && other != c.Cluster() {
		b.o.logger.Warn("a backup of the outbox's cluster was restored in another: it goes on there, and only there", "outbox", b.file.path, "was", other, "now", c.Cluster())
	}
	s, err := sequenced.Open(b.ctx, c, b.queue, b.file.name)
	if err != nil {
		return err
	}
	defer s.Close()
	b.bodyMax.Store(int64(sequenced.BodyBytesMax(c)))
	verdicts, err := b.verdicts(c, s)
	if err != nil {
		return err
	}
	b.step("session opened")
	b.status(sessionText(s.ID()), nil)
	b.tellKeeper(func(n *news) { n.opened = &opened{session: s, cluster: c.Cluster(), verdicts: verdicts} })
	select {
	case <-s.Ended():
	case <-b.ctx.Done():
		s.Close()
	}
	// Every answer has been given. From here on the file says what was sent, and
	// nothing is sent before the next session.
	err = s.Err()
	b.status("", err)
	known := make(chan struct{})
	b.tellKeeper(func(n *news) { n.opened, n.ended = nil, known })
	select {
	case <-known:
	case <-b.ctx.Done():
	}
	if errors.Is(err, client.ErrSessionExpired) || errors.Is(err, client.ErrRestored) || errors.Is(err, client.ErrWrongCluster) {
		return nil
	}
	return err
}

// verdicts asks what became of entries that were sent in sessions before s.
func (b *Outbox) verdicts(c *client.Client, s sequenced.Session) (map[Number]verdict, error) {
	sent, err := b.file.sentBefore(s.ID())
	if err != nil {
		return nil, err
	}
	verdicts := map[Number]verdict{}
	for n, id := range sent {
		o, err := c.Outcome(b.ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look up what became of %s: %w", id, err)
		}
		verdicts[n] = verdictOf(o, s)
	}
	if len(sent) > 0 {
		b.o.logger.Warn("the session of before is lost", "outbox", b.file.path, "session", b.file.name, "entries", len(sent))
	}
	return verdicts, nil
}

func (b *Outbox) tellKeeper(f func(*news)) {
	b.mu.Lock()
	f(&b.news)
	b.mu.Unlock()
	b.kick()
}

// status is shown by Stats.
func (b *Outbox) status(session string, trouble error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Session, b.stats.Trouble = session, trouble
}

// sessionText is a session as it is printed within its cluster.
func sessionText(id wire.SessionID) string {
	id.Incarnation = 0
	return id.String()
}
