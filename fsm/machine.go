package fsm

import (
	"fmt"

	"github.com/google/btree"

	"onceq/transport/wire/pack"
)

// Config is what a machine needs to know beside its log.
type Config struct {
	// Group is the number of the raft group, part of every session id.
	Group uint32
	// Limits must be the same on every node. Zero fields take the default.
	Limits Limits
	// Version is the newest version of the machine that the node takes part in.
	// Default: MachineVersion.
	Version uint32
}

// Machine is the replicated state of one group. See the package comment for
// what callers owe it.
type Machine struct {
	group    uint32
	limits   Limits
	supports uint32 // the newest version
	bodies   BodyStore

	version uint32

	index       uint64
	now         Time
	founded     uint64 // the incarnation that the cluster was formed with, which every leader names
	incarnation uint64
	lives       []Life   // before the restores that led here, newest last
	backup      BackupID // the one that was restored last; zero: none
	staging     *staging // a backup that is on its way in; nil: none
	leader      string   // of the newest term entry
	leaderNonce Nonce

	// graceFloor: no consumer's grace ends before it. The leader raises it while
	// consumers still wait to attach, at most GraceHoldsMax times a term.
	graceFloor Time
	graceHolds uint8
	// detaching: a term has begun, and the consumers from this ordinal on have yet to be
	// detached; 0: all are.
	detaching uint64

	nextSession, nextQueue, nextConsumer uint64
	deletions                            uint64 // of queues
	lastEpoch                            uint64 // of named sessions

	sessions           table[uint64, *session]
	sessionsByKey      table[sessionKey, *session]
	sessionsByNumber   *btree.BTreeG[*session]
	queues             map[uint64]*queue
	queuesByName       map[string]*queue
	queuesByNumber     *btree.BTreeG[*queue]
	deadLetters        map[string]*btree.BTreeG[*queue] // by the name of where they go
	ending             map[uint64]*queue                // deleted, and their consumers are not gone yet
	consumers          map[ConsumerID]*consumer
	consumersByOrdinal consumerOrder
	timers             timers

	// Sums over the tables.
	outcomes     int
	sessionBytes int64 // of sessions and outcomes, see session.bytes
	leases       int
	slots        int // of all consumers
	messages     int64
	indexed      int   // records of messages
	goneRanges   int   // of all queues
	noteBytes    int64 // of texts in the notes of messages
	plainLeases  int   // leases of messages without a record; each may come to need one
	duplicates   uint64

	busy       []*queue // may have something to assign
	assignFrom uint64
	assigned   int    // deliveries of the newest entry: the next has about as many
	spent      int    // of the timer budget, in this entry
	share      int    // what spent may come to while one timer is served
	passed     int    // of the budget for passing records, in this entry
	answered   int    // of the budget for delivery numbers, in this entry
	pulls      []pull // of this entry

	sum            uint64 // of the rows' hashes
	changed        []row
	droppedChanged int
	digests        digestRing
	copying        *tableCopy // for the next snapshot, nil for none

	dec        decoder
	scratch    pack.Writer
	attributes []attributes // of one publish, reused
}

// New returns an empty machine.
func New(cfg Config, bodies BodyStore) *Machine {
	m := &Machine{group: cfg.Group, limits: cfg.Limits.withDefaults(), supports: cfg.Version, bodies: bodies}
	if m.supports == 0 {
		m.supports = MachineVersion
	}
	m.reset()
	return m
}

// reset forgets all state.
func (m *Machine) reset() {
	m.EndCopy()
	*m = Machine{
		group: m.group, limits: m.limits, supports: m.supports, bodies: m.bodies, version: machineVersionFirst,
		sessions:         newTable[uint64, *session](),
		sessionsByKey:    newTable[sessionKey, *session](),
		sessionsByNumber: btree.NewG(32, func(a, b *session) bool { return a.number < b.number }),
		queues:           map[uint64]*queue{},
		queuesByName:     map[string]*queue{},
		queuesByNumber:   btree.NewG(32, func(a, b *queue) bool { return a.number < b.number }),
		deadLetters:      map[string]*btree.BTreeG[*queue]{},
		ending:           map[uint64]*queue{},
		consumers:        map[ConsumerID]*consumer{},
	}
}

// Apply applies one entry. An error means that this node must stop.
func (m *Machine) Apply(index uint64, entry []byte) (*Effects, error) {
	eff, err := m.runAll(index, entry)
	if err != nil {
		return nil, err
	}
	m.fireTimers(eff)
	m.finish(eff)
	return eff, nil
}

// runAll is the first half of Apply: the entry's commands, one after the other.
func (m *Machine) runAll(index uint64, entry []byte) (*Effects, error) {
	er, err := readEntry(entry)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	m.index = index
	m.now = max(m.now, er.stamp)
	m.spent, m.passed, m.answered = 0, 0, 0
	eff := &Effects{Proposal: er.proposal, Results: make([]Result, 0, er.count)}
	for range er.count {
		kind, payload, err := er.next()
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		eff.Results = append(eff.Results, Result{Kind: kind})
		if err := m.run(kind, payload, er.wall, &eff.Results[len(eff.Results)-1], eff); err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return eff, nil
}

// finish is the end of Apply, behind the timers.
func (m *Machine) finish(eff *Effects) {
	m.assign(eff)
	m.sumSome()
	eff.Now, eff.NextTimer = m.now, m.NextTimer()
}

// run runs one command. What does not decode is refused: Check has let nothing
// of the kind into the log, and a panic would end every node. An error must stop the
// node.
func (m *Machine) run(kind Kind, p []byte, wall int64, r *Result, eff *Effects) (stop error) {
	if Since(kind) > m.version {
		r.Status = StatusUnsupported
		return nil
	}
	var err error
	switch kind {
	case KindTerm:
		var c term
		if c, err = m.dec.decodeTerm(p); err == nil {
			r.Status = m.beginTerm(c, eff)
		}
	case KindDetach:
		var c detach
		if c, err = m.dec.decodeDetach(p); err == nil {
			r.Status = m.detach(c)
		}
	case KindHoldGrace:
		r.Status = m.holdGrace()
	case KindDigest:
		d := DigestResult{Index: m.index, Digest: m.Digest()}
		m.digests.keep(d)
		eff.Digest, r.Status = &d, StatusOK
	case KindVerdict:
		var v Verdict
		if v, err = m.dec.decodeVerdict(p); err == nil {
			eff.Verdict, r.Status = &v, StatusOK
		}
	case KindRaise:
		var v uint32
		if v, err = m.dec.decodeRaise(p); err == nil {
			r.Status, stop = m.raise(v)
		}
	case KindOpenSession:
		var c openSession
		if c, err = m.dec.decodeOpenSession(p); err == nil {
			r.Status, r.Session = m.openSession(c)
		}
	case KindCloseSession:
		var c closeSession
		if c, err = m.dec.decodeCloseSession(p); err == nil {
			r.Status = m.closeSession(c)
		}
	case KindPublish:
		var c *publishFrame
		if c, err = m.dec.decodePublish(p); err == nil {
			r.Status, r.Publish = m.publish(c, wall, make([]PublishResult, 0, len(c.publishes)))
		}
	case KindSeal:
		var c seal
		if c, err = m.dec.decodeSeal(p); err == nil {
			r.Status, r.Publish = m.seal(c)
		}
	case KindAttach:
		var c attach
		if c, err = m.dec.decodeAttach(p); err == nil {
			r.Status = m.attach(c, r, eff)
		}
	case KindLeave:
		var c leave
		if c, err = m.dec.decodeLeave(p); err == nil {
			r.Status = m.leave(c)
		}
	case KindSettle:
		var c *settle
		if c, err = m.dec.decodeSettle(p); err == nil {
			r.Status, r.Settle = m.settle(c, nil)
		}
	case KindReceive:
		var c receive
		if c, err = m.dec.decodeReceive(p); err == nil {
			m.pulls = append(m.pulls, pull{receive: c, r: r}) // decided in the fourth step
		}
	case KindRelease:
		var c release
		if c, err = m.dec.decodeRelease(p); err == nil {
			r.Status = m.release(c, r)
		}
	case KindQueueCreate:
		var c queueCreate
		if c, err = m.dec.decodeQueueCreate(p); err == nil {
			r.Status = m.createQueue(c, r)
		}
	case KindQueueDelete:
		var c queueDelete
		if c, err = m.dec.decodeQueueDelete(p); err == nil {
			r.Status = m.deleteQueue(c, r)
		}
	case KindQueuePurge:
		var c queuePurge
		if c, err = m.dec.decodeQueuePurge(p); err == nil {
			r.Status = m.purgeQueue(c, r)
		}
	case KindQueueUpdate:
		var c queueUpdate
		if c, err = m.dec.decodeQueueUpdate(p); err == nil {
			r.Status = m.updateQueue(c, r)
		}
	case KindQueuePause:
		var c queuePause
		if c, err = m.dec.decodeQueuePause(p); err == nil {
			r.Status = m.pauseQueue(c, r)
		}
	case KindEdit:
		var c *edit
		if c, err = m.dec.decodeEdit(p); err == nil {
			r.Status = m.edit(c, r, eff)
		}
	case KindAckPublish:
		var c *ackPublish
		if c, err = m.dec.decodeAckPublish(p); err == nil {
			var res PublishResult
			r.Status, res = m.ackAndPublish(c, wall)
			r.Publish = []PublishResult{res}
		}
	case KindRestoreBegin:
		var c restoreBegin
		if c, err = m.dec.decodeRestoreBegin(p); err == nil {
			r.Status = m.beginRestore(c, r)
		}
	case KindRestoreChunk:
		var c restoreChunk
		if c, err = m.dec.decodeRestoreChunk(p); err == nil {
			r.Status = m.takeChunk(c, r)
		}
	case KindRestoreEnd:
		var c restoreEnd
		if c, err = m.dec.decodeRestoreEnd(p); err == nil {
			r.Status = m.endRestore(c, r, eff)
		}
	default:
		r.Status = StatusUnsupported
	}
	if err != nil {
		r.Status = StatusMalformed
	}
	return stop
}

// mayAnswer takes delivery numbers from the entry's budget. A small request names many
// of them, also again and again. The first of an entry is let through in any case.
func (m *Machine) mayAnswer(numbers int) bool {
	if numbers > 0 && m.answered > 0 && m.answered+numbers > m.limits.AnswerBudget {
		return false
	}
	m.answered += numbers
	return true
}

// own says whether a request is meant for this group of this cluster, and not
// from before a restore.
func (m *Machine) own(incarnation uint64, group uint32) Status {
	if incarnation != m.incarnation || group != m.group {
		return StatusWrongIncarnation
	}
	return StatusOK
}

// beginTerm runs the leader's first own entry. Nobody is attached to the new
// leader yet, so everybody is detached: their leases last at least the grace
// time, whatever was left of them, and nothing is assigned to consumers that
// nobody can reach.
func (m *Machine) beginTerm(c term, eff *Effects) Status {
	if m.founded == 0 {
		m.founded, m.incarnation = c.incarnation, c.incarnation
	}
	if c.incarnation != m.founded {
		return StatusWrongIncarnation
	}
	m.leader, m.leaderNonce = c.node, c.nonce
	m.graceHolds = 0
	m.detaching = 1
	m.detachSome()
	eff.Term = &TermResult{Node: c.node, Nonce: c.nonce}
	return StatusOK
}

// detachSome detaches consumers as far as the budget goes. While some are left nothing
// else happens to any: no timer fires, nothing is assigned, and nobody attaches, so
// that who is attached was so before the term.
func (m *Machine) detachSome() {
	for m.detaching > 0 && m.spent < m.limits.TimerBudget {
		c := m.consumersByOrdinal.next(m.detaching)
		if c == nil {
			m.detaching = 0
			return
		}
		m.spent++
		m.detaching = c.ordinal + 1
		if c.attached {
			m.detachConsumer(c)
		}
	}
}

// holdGrace keeps everybody's grace from ending while the leader still has
// connections that wait to attach: a reconnect storm is no reason to redeliver.
func (m *Machine) holdGrace() Status {
	if m.graceHolds >= GraceHoldsMax {
		return StatusStale
	}
	m.graceHolds++
	m.graceFloor = max(m.graceFloor, m.now+Time(GraceTime))
	return StatusOK
}

// fireTimers serves due timers, earliest first, until the budget is spent.
func (m *Machine) fireTimers(eff *Effects) {
	if m.detachSome(); m.detaching > 0 {
		eff.More = true
		return
	}
	for m.fireNext(eff) {
	}
}

// fireNext serves the earliest timer, if it is due and the budget allows it.
func (m *Machine) fireNext(eff *Effects) bool {
	t := m.timers.first()
	if t == nil || t.at > m.now {
		return false
	}
	if m.spent >= m.limits.TimerBudget {
		eff.More = true
		return false
	}
	before := m.spent
	m.share = m.limits.TimerBudget
	if m.version >= versionTimersInTurn {
		m.share = min(m.share, m.spent+max(1, m.limits.TimerBudget/2))
	}
	m.fire(t, eff)
	if m.spent == before {
		m.spent++ // it has only looked, and set itself anew
	}
	return true
}

// fire serves one timer that is due. An owner that has more to do than its share stays
// due, and whoever was due before now comes first.
func (m *Machine) fire(t *timer, eff *Effects) {
	switch t.kind {
	case timerConsumer:
		m.fireConsumer(m.consumersByOrdinal.get(t.id), eff)
	case timerQueue:
		q := m.queues[t.id]
		if q == nil {
			// It stays first, see beginEnding: all the consumers that there can be are
			// gone after a few entries.
			m.fireEnding(m.ending[t.id], eff)
			return
		}
		m.fireQueue(q)
	case timerSession:
		m.fireSession(m.sessions.rows[t.id])
	}
	if m.version >= versionTimersInTurn && t.at < m.now {
		m.timers.set(t, m.now)
	}
}

// Now returns cluster time.
func (m *Machine) Now() Time { return m.now }

// NextTimer returns when the earliest pending timer is due, 0 for none.
func (m *Machine) NextTimer() Time {
	if t := m.timers.first(); t != nil {
		return max(t.at, 1)
	}
	return 0
}

// Index returns the index of the newest entry applied.
func (m *Machine) Index() uint64 { return m.index }

// Incarnation returns the cluster's life between restores; 0 before the first
// term entry.
func (m *Machine) Incarnation() uint64 { return m.incarnation }

// Counts are sums over the tables.
type Counts struct {
	Sessions, Outcomes, Queues, Consumers, Leases, Messages, Indexed, Duplicates uint64
}

// Counts returns the sums over the tables.
func (m *Machine) Counts() Counts {
	return Counts{
		Sessions: uint64(len(m.sessions.rows)), Outcomes: uint64(m.outcomes), Queues: uint64(len(m.queues)),
		Consumers: uint64(len(m.consumers)), Leases: uint64(m.leases), Messages: uint64(m.messages),
		Indexed: uint64(m.indexed), Duplicates: m.duplicates,
	}
}
