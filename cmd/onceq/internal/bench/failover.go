package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"onceq/client"
)

// Faults of the leader that Failover measures.
const (
	FaultKill     = "kill"     // SIGKILL
	FaultStop     = "stop"     // SIGTERM: it hands over
	FaultTransfer = "transfer" // by command
	FaultPause    = "pause"    // SIGSTOP
)

// FailoverConfig says what is measured.
type FailoverConfig struct {
	Fault string
	Runs  int
	Size  int // bytes of a body
	Seed  uint64
}

// Bounds of a run.
const (
	settleTime     = time.Second      // with the publishes flowing, before the fault
	afterTime      = 2 * time.Second  // and after it
	recoverTimeout = 60 * time.Second // for the first publish after the fault
)

// Event is a line of a node's log.
type Event struct {
	At   time.Time
	Node string
	Text string
}

// What parts a failover: lines of a node's log, two of them of raft's, and the
// client's own.
const (
	EventEnded   = "the leader's process has ended"
	EventSilent  = "heartbeat timeout reached, starting election"
	EventLeads   = "leading: waiting for the first entry of the term"
	EventServing = "leading: serving clients"

	eventConnected = "connected" // the client, to the leader
)

// Patient is the cluster whose leader is taken away.
type Patient struct {
	URL string
	// Strike takes the leader away and says which node it was and when.
	Strike func(ctx context.Context, fault string) (leader string, at time.Time, err error)
	// Heal brings the node back and waits until the cluster is whole.
	Heal func(ctx context.Context, fault, node string) error
	// Events are what the nodes have logged since.
	Events func(since time.Time) ([]Event, error)
	Say    func(format string, args ...any)
}

// FailoverRow is one fault. Gap is the longest time between two confirmed
// publishes of a producer that has one message under way; the others are its
// parts, by logs that tell milliseconds; 0 where they do not tell.
type FailoverRow struct {
	Run        int     `json:"run"`
	Fault      string  `json:"fault"`
	Leader     string  `json:"leader"` // that was taken away
	Next       string  `json:"next"`
	Gap        float64 `json:"gap_ms"`
	Detected   bool    `json:"detected"`      // false where it handed over: nobody has to find out
	Detect     float64 `json:"detect_ms"`     // until another node knew
	Elect      float64 `json:"elect_ms"`      // until it was elected
	Barrier    float64 `json:"barrier_ms"`    // until the first entry of its term was applied
	Reconnect  float64 `json:"reconnect_ms"`  // until the client was connected to it
	Retransmit float64 `json:"retransmit_ms"` // until the client had its first confirmation
	Copies     int     `json:"copies"`        // publishes sent again
}

// Failover takes the leader away again and again.
func Failover(ctx context.Context, cfg FailoverConfig, p Patient, show func(FailoverRow)) error {
	for run := 1; run <= cfg.Runs; run++ {
		p.Say("%s of the leader, %d of %d", cfg.Fault, run, cfg.Runs)
		row, err := failover(ctx, cfg, p, run)
		for again := 1; err == nil && !row.measured() && again < strikesMax; again++ {
			p.Say("%s of the leader, %d of %d: once more, %s did not lead any more when it came", cfg.Fault, run, cfg.Runs, row.Leader)
			row, err = failover(ctx, cfg, p, run)
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", run, err)
		}
		show(row)
	}
	return nil
}

// strikesMax is how often a run is tried: on a busy machine the leader may change by
// itself between the look for it and the fault, and then there is nothing to measure.
const strikesMax = 5

// measured says that another node took over because of the fault: not before it, as
// when an election was under way.
func (r FailoverRow) measured() bool {
	found := r.Fault == FaultKill || r.Fault == FaultPause
	return r.Next != "" && r.Next != r.Leader && (r.Detected || !found)
}

func failover(ctx context.Context, cfg FailoverConfig, p Patient, run int) (FailoverRow, error) {
	row := FailoverRow{Run: run, Fault: cfg.Fault}
	var made links
	c, err := client.Dial(ctx, p.URL, client.WithLabel("onceq bench failover"), client.WithConnectionHook(made.note))
	if err != nil {
		return row, err
	}
	defer c.Close()
	queue := fmt.Sprintf("bench-failover-%x", time.Now().UnixNano())
	if _, err := c.Admin().CreateQueue(ctx, queue, client.QueueSettings{}); err != nil {
		return row, err
	}
	pulse, err := newPulse(ctx, c, queue, cfg)
	if err != nil {
		return row, err
	}
	defer pulse.end()
	if !pause(ctx, settleTime) {
		return row, context.Cause(ctx)
	}
	leader, at, err := p.Strike(ctx, cfg.Fault)
	if err != nil {
		return row, err
	}
	if err := pulse.beatAfter(ctx, at); err != nil {
		return row, err
	}
	if !pause(ctx, afterTime) {
		return row, context.Cause(ctx)
	}
	if err := pulse.end(); err != nil {
		return row, err
	}
	row.Leader, row.Copies = leader, pulse.again
	events, err := p.Events(at)
	if err != nil {
		return row, err
	}
	split(&row, at, pulse.confirmed, append(events, made.all()...))
	if err := p.Heal(ctx, cfg.Fault, leader); err != nil {
		return row, err
	}
	_, err = c.Admin().DeleteQueue(ctx, queue)
	return row, err
}

// split fills in the gap after at, and its parts.
func split(row *FailoverRow, at time.Time, confirmed []time.Time, events []Event) {
	ms := func(d time.Duration) float64 { return max(0, float64(d)/float64(time.Millisecond)) }
	for i := 1; i < len(confirmed); i++ {
		if confirmed[i].After(at) {
			row.Gap = max(row.Gap, ms(confirmed[i].Sub(confirmed[i-1])))
		}
	}
	at = at.Truncate(time.Millisecond) // the nodes' logs are cut to it
	var known, leads, serving, resumed time.Time
	for _, e := range events {
		switch {
		case (e.Text == EventEnded || e.Text == EventSilent) && (known.IsZero() || e.At.Before(known)):
			known = e.At
		case e.Text == EventLeads && leads.IsZero():
			leads = e.At
		case e.Text == EventServing && serving.IsZero():
			serving, row.Next = e.At, e.Node
		}
	}
	for _, c := range confirmed {
		if c.After(serving) {
			resumed = c
			break
		}
	}
	if serving.IsZero() || leads.IsZero() || resumed.IsZero() {
		return
	}
	if !known.IsZero() && !known.After(leads) {
		row.Detected, row.Detect = true, ms(known.Sub(at))
	} else {
		known = at // a handover: nobody has to find out
	}
	connected := serving // it may have been before
	for _, e := range events {
		if e.Text == eventConnected && e.Node == row.Next && e.At.After(serving) && e.At.Before(resumed) {
			connected = e.At
			break
		}
	}
	row.Elect, row.Barrier = ms(leads.Sub(known)), ms(serving.Sub(leads))
	row.Reconnect, row.Retransmit = ms(connected.Sub(serving)), ms(resumed.Sub(connected))
}

// links are the connections that a client has made to leaders.
type links struct {
	mu   sync.Mutex // guards made
	made []Event
}

func (l *links) note(e client.ConnectionEvent) {
	if !e.Connected {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made = append(l.made, Event{time.Now(), e.Node, eventConnected})
}

func (l *links) all() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.made)
}

// Median is the middle of a column.
func Median(rows []FailoverRow, column func(FailoverRow) float64) float64 {
	var vs []float64
	for _, r := range rows {
		vs = append(vs, column(r))
	}
	if len(vs) == 0 {
		return 0
	}
	slices.Sort(vs)
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// pulse publishes one message at a time and notes when each is confirmed.
type pulse struct {
	cancel context.CancelFunc
	done   chan struct{}
	beat   chan struct{} // capacity 1: something was confirmed

	mu        sync.Mutex // guards what follows, until done is closed
	confirmed []time.Time
	again     int
	err       error
}

func newPulse(ctx context.Context, c *client.Client, queue string, cfg FailoverConfig) (*pulse, error) {
	producer, err := c.NewProducer(queue)
	if err != nil {
		return nil, err
	}
	beating, cancel := context.WithCancel(ctx)
	p := &pulse{cancel: cancel, done: make(chan struct{}), beat: make(chan struct{}, 1)}
	bodies := newBodies(cfg.Size, cfg.Seed)
	go func() {
		defer close(p.done)
		for n := uint64(0); beating.Err() == nil; n++ {
			r, err := producer.Publish(ctx, client.Message{Body: bodies.next(n, 0)})
			p.mu.Lock()
			if err != nil {
				p.err = err
				p.mu.Unlock()
				return
			}
			p.confirmed = append(p.confirmed, time.Now())
			p.again += r.Attempts - 1
			p.mu.Unlock()
			select {
			case p.beat <- struct{}{}:
			default:
			}
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		producer.Close(closing) // a session that stays open expires
	}()
	return p, nil
}

// beatAfter waits for the first publish that was confirmed after at.
func (p *pulse) beatAfter(ctx context.Context, at time.Time) error {
	waiting, cancel := context.WithTimeoutCause(ctx, recoverTimeout, fmt.Errorf("no publish was confirmed in %v", recoverTimeout))
	defer cancel()
	for {
		p.mu.Lock()
		n := len(p.confirmed)
		ok := n > 0 && p.confirmed[n-1].After(at)
		p.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-p.beat:
		case <-p.done:
			return p.err
		case <-waiting.Done():
			return context.Cause(waiting)
		}
	}
}

// end stops the pulse. It may be called twice.
func (p *pulse) end() error {
	p.cancel()
	<-p.done
	return p.err
}

// pause is false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
