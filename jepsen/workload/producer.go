package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

// producer publishes through the client library at a fixed rate, whatever becomes
// of the publishes. Now and then it ends, in order or not, and goes on under a new
// name; a publish never takes a new id.
type producer struct {
	w         *World
	queue     string
	rate      float64
	pipelined bool
	session   string        // name of the session, "" for none
	burst     int           // so many at once, 0 for one by one; the rate stays
	keys      int           // ordering keys, drawn for each message; 0 for none
	timed     bool          // priorities, and some are kept back
	prior     bool          // priorities, and nothing is kept back
	expires   bool          // messages have a time to live of their own
	queueTTL  time.Duration // of the queue, 0 for none
	stays     bool          // it ends with the run, in order, and asks what became of each unknown one
	patient   int           // per cent of the publishes that it waits for until they have an answer
	hasty     bool          // it gives up while copies are under way, and always asks what became of them
	// after is called, when it is set, with each publish that was sealed.
	after func(op history.Event, id client.InnerMsgID, m client.Message)

	mu   sync.Mutex      // guards what follows
	left []history.Event // publishes of lives that have crashed, without an outcome
}

// leftMax bounds what one life resolves of those before.
const leftMax = 200

const (
	inFlightMax   = 512
	patienceLeast = 1500 * time.Millisecond
	patienceMost  = 6 * time.Second
	closeTimeout  = 5 * time.Second
	// patientMost is more than anything may take that has to happen at some time.
	patientMost      = 75 * time.Second
	crashPercent     = 30
	resolvePercent   = 50
	outcomePatience  = 10 * time.Second
	producerLifeMin  = 6 * time.Second
	producerLifeMost = 20 * time.Second
)

// run publishes until ctx ends.
func (p *producer) run(ctx context.Context, name string) {
	r := p.w.rng(name)
	for life := 1; ctx.Err() == nil; life++ {
		proc := name + "." + strconv.Itoa(life)
		c := p.w.connect(ctx, proc)
		if c == nil {
			return
		}
		p.live(ctx, c, proc, r)
		_ = c.Close()
	}
}

// live is one life: one client, one producer, one session.
func (p *producer) live(ctx context.Context, c *client.Client, proc string, r *rand.Rand) {
	var opts []client.ProducerOption
	if p.session != "" {
		opts = append(opts, client.WithName(p.session))
	}
	pr, err := c.NewProducer(p.queue, append(opts, client.WithMaxInFlight(inFlightMax))...)
	if err != nil {
		p.w.Report("%s: %v", proc, err)
		return
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	p.mu.Lock()
	left := p.left
	p.left = nil
	p.mu.Unlock()
	waiting.Go(func() {
		for _, op := range left {
			p.seal(c, proc, op)
		}
	})
	living := ctx
	if !p.stays {
		var cancel context.CancelFunc
		living, cancel = context.WithTimeout(ctx, between(r, producerLifeMin, producerLifeMost))
		defer cancel()
	}
	burst := max(p.burst, 1)
	tick := time.NewTicker(time.Duration(float64(time.Second) * float64(burst) / p.rate))
	defer tick.Stop()
	for n := 0; living.Err() == nil; n++ {
		if n%burst == 0 {
			select {
			case <-tick.C:
			case <-living.Done():
				continue
			}
		}
		id := p.w.id(proc, n)
		m := p.message(id, r)
		patient := p.patient > 0 && r.IntN(100) < p.patient
		op := p.w.H.Invoke(history.Event{
			Proc: proc, Client: proc, F: history.Publish, Key: p.queue, ID: id, OrderingKey: m.OrderingKey, Lane: m.Priority, Delay: int64(m.Delay), TTL: int64(p.tooOld(m)),
			Patient: patient, Carried: carriedBy(m),
		})
		// The publish outlives the producer's life: how it ends is what the end of a
		// life is about.
		patience := between(r, patienceLeast, patienceMost)
		if p.hasty && r.IntN(100) < hastyPercent {
			patience = between(r, 0, hastyMost)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		if patient {
			cancel()
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
		}
		if !p.pipelined {
			receipt, err := pr.Publish(ctx, m)
			cancel()
			p.w.published(op, receipt, err)
			p.resolve(c, proc, op, err, r)
			continue
		}
		f := pr.PublishAsync(ctx, m)
		seed := r.Uint64()
		waiting.Go(func() {
			defer cancel()
			receipt, err := f.Wait(context.WithoutCancel(ctx))
			p.w.published(op, receipt, err)
			p.resolve(c, proc, op, err, rand.New(rand.NewPCG(seed, 1)))
		})
	}
	if r.IntN(100) < crashPercent && ctx.Err() == nil {
		_ = c.Close() // what is in flight ends as unknown
		return
	}
	timeout := closeTimeout
	if p.patient > 0 {
		timeout = patientMost
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_ = pr.Close(closing) // each publish tells its own outcome
	waiting.Wait()
}

// message makes a message of the producer's kind.
func (p *producer) message(id string, r *rand.Rand) client.Message {
	m := content(id)
	if p.keys > 0 {
		m.OrderingKey = fmt.Sprintf("k%d", r.IntN(p.keys))
	}
	if p.timed || p.prior {
		m.Priority = r.IntN(priorities)
	}
	if p.timed {
		if r.IntN(100) < delayPercent {
			m.Delay = between(r, delayLeast, delayMost)
		}
	}
	if p.expires {
		m.TTL = between(r, ttlLeast, ttlMost)
	}
	return m
}

// tooOld is after how long a message is, 0 for never: by its own time to live or by
// that of its queue, whichever is over first.
func (p *producer) tooOld(m client.Message) time.Duration {
	if m.TTL == 0 || p.queueTTL > 0 && p.queueTTL < m.TTL {
		return p.queueTTL
	}
	return m.TTL
}

// resolve asks, for some of the publishes that ended as unknown, what became of
// them. When the client was closed, the next life asks.
func (p *producer) resolve(c *client.Client, proc string, op history.Event, err error, r *rand.Rand) {
	unknown := (*client.OutcomeUnknownError)(nil)
	if !errors.As(err, &unknown) || !p.hasty && !p.stays && r.IntN(100) >= resolvePercent {
		return
	}
	op.Inner = unknown.ID.String()
	if !errors.Is(err, client.ErrClosed) {
		p.seal(c, proc, op)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.left) < leftMax {
		p.left = append(p.left, op)
	}
}

// seal closes a publish for good and writes what became of it.
func (p *producer) seal(c *client.Client, proc string, op history.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), outcomePatience)
	defer cancel()
	id, err := client.ParseInnerMsgID(op.Inner)
	if err != nil {
		p.w.Report("%s: %v", proc, err)
		return
	}
	seal := p.w.H.Invoke(history.Event{Proc: proc, Client: proc, F: history.Seal, Key: p.queue, ID: op.ID, Inner: id.Short()})
	o, err := c.Seal(ctx, id)
	switch {
	case err != nil:
		seal.Err = err.Error()
		p.w.H.Complete(seal, history.Info)
		return
	case o.State == client.Stored:
		seal.Text, seal.Seq = "stored", o.Message.Offset
		seal.Lane = int(o.Message.Lane)
	case o.State == client.Never:
		seal.Text = "sealed"
	default:
		seal.Text = "below floor"
		seal.Err = o.State.String() + ": " + o.Reason
	}
	p.w.H.Complete(seal, history.OK)
	if p.after != nil {
		p.after(op, id, content(op.ID))
	}
}
