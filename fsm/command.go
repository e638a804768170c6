package fsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"onceq/transport/wire/pack"
)

// The commands. Each payload is one msgpack array of the fields in the order
// in which they stand in the structs; transport/wire/messages.go documents those
// that clients send, whose bytes become the command's payload unchanged. Slices
// alias the payload.

type openSession struct {
	incarnation uint64
	group       uint32
	named       bool
	name        string
	expected    uint64
	nonce       Nonce
	label       string
}

type closeSession struct {
	incarnation uint64
	group       uint32
	session     uint64
	epoch       uint64
}

type publishFrame struct {
	incarnation uint64
	group       uint32
	session     uint64
	epoch       uint64
	floor       uint64
	queue       []byte
	publishes   []publish
	messages    [][]byte // encoded, of all publishes
}

type publish struct {
	sequence uint64
	after    uint64
	checksum uint64
	first    int // its messages are messages[first : first+count]
	count    int
}

type seal struct {
	incarnation uint64
	group       uint32
	session     uint64
	epoch       uint64
	sequences   []uint64
}

type numberRange struct{ from, to uint64 }

type attach struct {
	incarnation uint64
	group       uint32
	consumer    ConsumerID
	n           uint64
	queue       []byte
	credit      uint32
	label       string
	done        uint64
	unsettled   []numberRange
}

type leave struct {
	incarnation uint64
	group       uint32
	consumer    ConsumerID
	n           uint64
	done        uint64
	notHandled  []numberRange
}

type settle struct {
	incarnation uint64
	group       uint32
	consumer    ConsumerID
	done        uint64
	items       []settleItem
}

type receive struct {
	incarnation uint64
	group       uint32
	consumer    ConsumerID
	queue       []byte
	label       string
	first       uint64
	done        uint64
	limit       uint32
}

type release struct {
	incarnation uint64
	group       uint32
	consumer    ConsumerID
	queue       []byte
	first       uint64
	done        uint64
}

type settleItem struct {
	numberRange
	verb   uint8
	time   time.Duration
	reason []byte
	text   string // the reason, as all messages of the range keep it
}

type queueCreate struct {
	incarnation uint64
	group       uint32
	name        string
	deletions   uint64
	settings    QueueSettings
}

type queueDelete struct {
	incarnation uint64
	group       uint32
	number      uint64
	force       bool
}

type queueUpdate struct {
	incarnation uint64
	group       uint32
	number      uint64
	revision    uint64
	nonce       Nonce
	settings    QueueSettings
}

type queuePause struct {
	incarnation uint64
	group       uint32
	number      uint64
	revision    uint64
	nonce       Nonce
	paused      bool
}

type edit struct {
	incarnation uint64
	group       uint32
	number      uint64
	nonce       Nonce
	verb        EditVerb
	target      []byte // queue to move to; empty: where the dead letter came from
	places      []seenPlace
}

// seenPlace is a message as the sender of an edit has seen it.
type seenPlace struct {
	place
	turn uint64
}

type ackPublish struct {
	incarnation uint64
	group       uint32
	session     uint64
	epoch       uint64
	floor       uint64
	sequence    uint64
	checksum    uint64
	consumer    ConsumerID
	number      uint64
	done        uint64
	outputs     []output
}

// output is what an ack-and-publish stores in one queue.
type output struct {
	queue    []byte
	messages [][]byte
}

type queuePurge struct {
	incarnation uint64
	group       uint32
	number      uint64
	revision    uint64
	nonce       Nonce
}

type term struct {
	node        string
	nonce       Nonce
	incarnation uint64
}

type detach struct {
	consumer ConsumerID
	n        uint64
}

// decoder holds one of each command, reused from call to call, so that the
// frequent ones are decoded without allocating.
type decoder struct {
	r       pack.Reader
	publish publishFrame
	settle  settle
}

func (d *decoder) decodeOpenSession(p []byte) (c openSession, err error) {
	r := d.begin(p, 7)
	c.incarnation, c.group = r.Uint(), r.Uint32()
	c.named, c.name, c.expected = r.Bool(), r.Str(SessionNameBytesMax), r.Uint()
	r.BinExact(c.nonce[:])
	c.label = r.Str(LabelBytesMax)
	if c.named != (c.name != "") {
		r.Failf("a named session has a name, an unnamed one has none")
	}
	return c, r.Done()
}

func (d *decoder) decodeCloseSession(p []byte) (c closeSession, err error) {
	r := d.begin(p, 4)
	c = closeSession{r.Uint(), r.Uint32(), r.Uint(), r.Uint()}
	return c, r.Done()
}

// decodePublish decodes a frame without looking into its messages; Check does.
func (d *decoder) decodePublish(p []byte) (*publishFrame, error) {
	r, c := d.begin(p, 7), &d.publish
	c.incarnation, c.group = r.Uint(), r.Uint32()
	c.session, c.epoch, c.floor = r.Uint(), r.Uint(), r.Uint()
	c.queue = r.StrBytes(QueueNameBytesMax)
	c.publishes, c.messages = c.publishes[:0], c.messages[:0]
	n := r.Array(PublishesPerFrameMax)
	for range n {
		r.ArrayExact(4)
		q := publish{sequence: r.Uint(), after: r.Uint(), checksum: r.Uint(), first: len(c.messages)}
		q.count = r.Array(MessagesPerPublishMax)
		for range q.count {
			c.messages = append(c.messages, r.Raw())
			if r.Err() != nil {
				return c, r.Err()
			}
		}
		switch {
		case r.Err() != nil:
			return c, r.Err()
		case q.sequence == 0:
			r.Failf("sequences start at 1")
		case q.sequence < c.floor:
			r.Failf("the frame's floor %d is above its own sequence %d", c.floor, q.sequence)
		case q.after >= q.sequence:
			r.Failf("sequence %d cannot come after %d", q.sequence, q.after)
		case q.count == 0:
			r.Failf("sequence %d has no message", q.sequence)
		}
		c.publishes = append(c.publishes, q)
	}
	return c, r.Done()
}

func (d *decoder) decodeSeal(p []byte) (c seal, err error) {
	r := d.begin(p, 5)
	c = seal{incarnation: r.Uint(), group: r.Uint32(), session: r.Uint(), epoch: r.Uint()}
	n := r.Array(SealSequencesMax)
	c.sequences = make([]uint64, 0, n)
	for range n {
		s := r.Uint()
		if s == 0 && r.Err() == nil {
			r.Failf("sequences start at 1")
		}
		c.sequences = append(c.sequences, s)
	}
	return c, r.Done()
}

func (d *decoder) decodeAttach(p []byte) (c attach, err error) {
	r := d.begin(p, 9)
	c.incarnation, c.group = r.Uint(), r.Uint32()
	r.BinExact(c.consumer[:])
	c.n, c.queue, c.credit = r.Uint(), r.StrBytes(QueueNameBytesMax), r.Uint32()
	c.label, c.done = r.Str(LabelBytesMax), r.Uint()
	c.unsettled = readRanges(r)
	if r.Err() == nil && (c.n == 0 || c.credit == 0) {
		r.Failf("attachment number and credit start at 1")
	}
	return c, r.Done()
}

func (d *decoder) decodeLeave(p []byte) (c leave, err error) {
	r := d.begin(p, 6)
	c.incarnation, c.group = r.Uint(), r.Uint32()
	r.BinExact(c.consumer[:])
	c.n, c.done = r.Uint(), r.Uint()
	c.notHandled = readRanges(r)
	return c, r.Done()
}

func (d *decoder) decodeSettle(p []byte) (*settle, error) {
	r, c := d.begin(p, 5), &d.settle
	c.incarnation, c.group = r.Uint(), r.Uint32()
	r.BinExact(c.consumer[:])
	c.done = r.Uint()
	c.items = c.items[:0]
	total := uint64(0)
	for range r.Array(RangesMax) {
		r.ArrayExact(5)
		it := settleItem{numberRange: numberRange{r.Uint(), r.Uint()}, verb: r.Uint8(), time: time.Duration(r.Int()), reason: r.StrBytes(ReasonBytesMax)}
		if r.Err() != nil {
			break
		}
		total = it.check(r, total)
		switch {
		case it.verb < verbAck || it.verb > verbReject:
			r.Failf("unknown verb %d", it.verb)
		case it.time < 0 || it.verb == verbNack && it.time > NackDelayMax || it.verb == verbExtend && it.time > LeaseTimeMax:
			r.Failf("time %v is out of range (nack delay at most %v, extension at most %v)", it.time, NackDelayMax, LeaseTimeMax)
		}
		c.items = append(c.items, it)
	}
	return c, r.Done()
}

// decodeReceive passes over how long the receive waits: that is the leader's.
func (d *decoder) decodeReceive(p []byte) (c receive, err error) {
	r := d.begin(p, 9)
	c.incarnation, c.group = r.Uint(), r.Uint32()
	r.BinExact(c.consumer[:])
	c.queue, c.label = r.StrBytes(QueueNameBytesMax), r.Str(LabelBytesMax)
	c.first, c.done, c.limit = r.Uint(), r.Uint(), r.Uint32()
	wait := r.Int()
	switch {
	case r.Err() != nil:
	case c.first == 0:
		r.Failf("delivery numbers start at 1")
	case c.limit == 0 || c.limit > ReceiveMax:
		r.Failf("a receive of %d messages: 1 to %d is accepted", c.limit, ReceiveMax)
	case wait < 0 || wait > int64(ReceiveWaitMax):
		r.Failf("a wait of %d ns: 0 to %v is accepted", wait, ReceiveWaitMax)
	}
	return c, r.Done()
}

func (d *decoder) decodeRelease(p []byte) (c release, err error) {
	r := d.begin(p, 6)
	c.incarnation, c.group = r.Uint(), r.Uint32()
	r.BinExact(c.consumer[:])
	c.queue, c.first, c.done = r.StrBytes(QueueNameBytesMax), r.Uint(), r.Uint()
	if r.Err() == nil && c.first == 0 {
		r.Failf("delivery numbers start at 1")
	}
	return c, r.Done()
}

func (d *decoder) decodeQueueCreate(p []byte) (c queueCreate, err error) {
	r := d.begin(p, 5)
	c.incarnation, c.group, c.name, c.deletions = r.Uint(), r.Uint32(), r.Str(QueueNameBytesMax), r.Uint()
	c.settings = readSettings(r)
	return c, r.Done()
}

func (d *decoder) decodeQueueDelete(p []byte) (c queueDelete, err error) {
	r := d.begin(p, 4)
	c = queueDelete{r.Uint(), r.Uint32(), r.Uint(), r.Bool()}
	return c, r.Done()
}

func (d *decoder) decodeQueueUpdate(p []byte) (c queueUpdate, err error) {
	r := d.begin(p, 6)
	c = queueUpdate{incarnation: r.Uint(), group: r.Uint32(), number: r.Uint(), revision: r.Uint()}
	r.BinExact(c.nonce[:])
	c.settings = readSettings(r)
	return c, r.Done()
}

func (d *decoder) decodeQueuePause(p []byte) (c queuePause, err error) {
	r := d.begin(p, 6)
	c = queuePause{incarnation: r.Uint(), group: r.Uint32(), number: r.Uint(), revision: r.Uint()}
	r.BinExact(c.nonce[:])
	c.paused = r.Bool()
	return c, r.Done()
}

func (d *decoder) decodeEdit(p []byte) (*edit, error) {
	r := d.begin(p, 7)
	c := &edit{incarnation: r.Uint(), group: r.Uint32(), number: r.Uint()}
	r.BinExact(c.nonce[:])
	c.verb, c.target = EditVerb(r.Uint8()), r.StrBytes(QueueNameBytesMax)
	n := r.Array(EditPlacesMax)
	c.places = make([]seenPlace, 0, n)
	for range n {
		r.ArrayExact(3)
		at := seenPlace{place{r.Uint8(), r.Uint()}, r.Uint()}
		if r.Err() == nil && at.lane >= Priorities {
			r.Failf("lane %d, there are %d", at.lane, Priorities)
		}
		c.places = append(c.places, at)
	}
	if r.Err() == nil && (c.verb < EditDelete || c.verb > EditMove) {
		r.Failf("unknown verb %d", c.verb)
	}
	return c, r.Done()
}

func (d *decoder) decodeAckPublish(p []byte) (*ackPublish, error) {
	r := d.begin(p, 11)
	c := &ackPublish{incarnation: r.Uint(), group: r.Uint32(), session: r.Uint(), epoch: r.Uint(), floor: r.Uint(), sequence: r.Uint(), checksum: r.Uint()}
	r.BinExact(c.consumer[:])
	c.number, c.done = r.Uint(), r.Uint()
	total := 0
	for range r.Array(AckPublishQueuesMax) {
		r.ArrayExact(2)
		out := output{queue: r.StrBytes(QueueNameBytesMax)}
		for range r.Array(MessagesPerPublishMax) {
			out.messages = append(out.messages, r.Raw())
			if r.Err() != nil {
				return c, r.Err()
			}
		}
		for _, other := range c.outputs {
			if string(other.queue) == string(out.queue) {
				r.Failf("queue %q is named twice", out.queue)
			}
		}
		if r.Err() == nil && len(out.messages) == 0 {
			r.Failf("no message for queue %q", out.queue)
		}
		total += len(out.messages)
		c.outputs = append(c.outputs, out)
	}
	switch {
	case r.Err() != nil:
	case c.sequence == 0:
		r.Failf("sequences start at 1")
	case c.sequence < c.floor:
		r.Failf("the floor %d is above the sequence %d", c.floor, c.sequence)
	case total > MessagesPerPublishMax:
		r.Failf("%d messages, at most %d are accepted", total, MessagesPerPublishMax)
	}
	return c, r.Done()
}

func (d *decoder) decodeQueuePurge(p []byte) (c queuePurge, err error) {
	r := d.begin(p, 5)
	c = queuePurge{incarnation: r.Uint(), group: r.Uint32(), number: r.Uint(), revision: r.Uint()}
	r.BinExact(c.nonce[:])
	return c, r.Done()
}

func (d *decoder) decodeTerm(p []byte) (c term, err error) {
	r := d.begin(p, 3)
	c.node = r.Str(TermNodeBytesMax)
	r.BinExact(c.nonce[:])
	c.incarnation = r.Uint()
	return c, r.Done()
}

func (d *decoder) decodeDetach(p []byte) (c detach, err error) {
	r := d.begin(p, 2)
	r.BinExact(c.consumer[:])
	c.n = r.Uint()
	return c, r.Done()
}

func (d *decoder) begin(p []byte, fields int) *pack.Reader {
	d.r.Reset(p)
	d.r.ArrayExact(fields)
	return &d.r
}

func readRanges(r *pack.Reader) []numberRange {
	n := r.Array(RangesMax)
	rs := make([]numberRange, 0, n)
	total := uint64(0)
	for range n {
		r.ArrayExact(2)
		x := numberRange{r.Uint(), r.Uint()}
		if r.Err() != nil {
			return nil
		}
		total = x.check(r, total)
		rs = append(rs, x)
	}
	return rs
}

// check bounds what a list of ranges names, so that a small payload cannot ask
// for unbounded work. It returns the numbers named so far.
func (x numberRange) check(r *pack.Reader, total uint64) uint64 {
	switch {
	case x.from == 0 || x.to < x.from || x.to == math.MaxUint64:
		// Nothing has the highest number, and a loop over the range could not end.
		r.Failf("bad range %d..%d", x.from, x.to)
	case x.to-x.from >= SettleNumbersMax || total+x.to-x.from+1 > SettleNumbersMax:
		r.Failf("more than %d delivery numbers", SettleNumbersMax)
	}
	return total + x.to - x.from + 1
}

func readSettings(r *pack.Reader) QueueSettings {
	r.ArrayExact(settingsFields)
	return QueueSettings{
		LeaseTime: time.Duration(r.Int()), LengthMax: r.Uint(), BytesMax: r.Uint(), TTL: time.Duration(r.Int()),
		DeliveryLimit: r.Uint32(), DeadLetter: r.Str(QueueNameBytesMax),
		BackoffMin: time.Duration(r.Int()), BackoffMax: time.Duration(r.Int()), SingleActive: r.Bool(),
	}
}

const settingsFields = 9

// TermPayload is the payload of a leader's first own entry. The incarnation is
// set by the first of a new cluster; later ones must agree.
func TermPayload(node string, nonce Nonce, incarnation uint64) []byte {
	var w pack.Writer
	w.Array(3)
	w.Str(node)
	w.Bin(nonce[:])
	w.Uint(incarnation)
	return w.Bytes()
}

// DetachPayload is the payload of KindDetach.
func DetachPayload(c ConsumerID, n uint64) []byte {
	var w pack.Writer
	w.Array(2)
	w.Bin(c[:])
	w.Uint(n)
	return w.Bytes()
}

// HoldGracePayload is the payload of KindHoldGrace.
func HoldGracePayload() []byte { return nil }

// DigestPayload is the payload of KindDigest.
func DigestPayload() []byte { return nil }

// CheckError says why a request does not enter the log.
type CheckError struct {
	Status Status
	Text   string
	// Settings says that all that is wrong is what somebody wants of a queue. It has no
	// status of its own, since what the machine answers must stay what it was.
	Settings bool
}

func (e *CheckError) Error() string { return e.Text }

func malformed(err error) error {
	if err == nil {
		return nil
	}
	var c *CheckError
	if errors.As(err, &c) {
		return err
	}
	return &CheckError{Status: StatusMalformed, Text: err.Error()}
}

func checkErrorf(s Status, format string, args ...any) error {
	return &CheckError{Status: s, Text: fmt.Sprintf(format, args...)}
}
