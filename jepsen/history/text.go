package history

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseText reads the compact form in which histories are written by hand. One
// line is one whole operation:
//
//	t0 t1 proc f [id] [type] [name=value ...] [flag ...]
//
// Times are milliseconds; a + in err and text is a blank; t1 may be "-" for an operation that never ended. type
// is ok unless it is given. Names are those of the JSON form, and of setup,
// state, queue, and sizes in KiB; limits are those of log and bodies in KiB, and whether
// memory counts; flags are dup, seen, alive, alone and patient. A "run" line sets up; without one
// there is a lease of 10 s, a grace of 5 s and an epsilon of 100 ms. Empty
// lines and what follows a # are ignored.
func ParseText(text string) ([]Event, error) {
	all := []Event{{F: Run, Type: OK, Of: -1, Setup: &Setup{
		Workload: "text", Nodes: 3,
		Lease: int64(10 * time.Second), Grace: int64(5 * time.Second), Epsilon: int64(100 * time.Millisecond),
	}}}
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := parseLine(&all, words); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n+1, line, err)
		}
	}
	return all, nil
}

func parseLine(all *[]Event, words []string) error {
	if words[0] == Run {
		p := &parser{e: &(*all)[0]}
		for _, w := range words[1:] {
			p.word(w)
		}
		return p.err
	}
	if len(words) < 4 {
		return fmt.Errorf("t0 t1 proc f are needed")
	}
	e := Event{Proc: words[2], F: words[3], Type: OK, Of: -1}
	p := &parser{e: &e}
	e.T0 = p.millis(words[0])
	if words[1] == "-" {
		e.Type = Invoke
	} else {
		e.T1 = p.millis(words[1])
	}
	rest := words[4:]
	if len(rest) > 0 && !strings.Contains(rest[0], "=") && !reserved[rest[0]] {
		e.ID, rest = rest[0], rest[1:]
	}
	for _, w := range rest {
		p.word(w)
	}
	if p.err != nil {
		return p.err
	}
	// An operation is two lines, unless it never ended or came unasked.
	if e.Type != Invoke && asked[e.F] {
		invoke := e
		invoke.Type, invoke.T1, invoke.I = Invoke, 0, len(*all)
		e.Of = len(*all)
		*all = append(*all, invoke)
	}
	e.I = len(*all)
	*all = append(*all, e)
	return nil
}

var reserved = map[string]bool{"ok": true, "fail": true, "info": true, "dup": true, "seen": true, "alive": true, "alone": true, "patient": true}

var asked = map[string]bool{Publish: true, Ack: true, Nack: true, Extend: true, Seal: true, Leave: true, Told: true, Attach: true, Open: true, Look: true, Admin: true, Members: true, Backup: true, Restore: true, Copy: true}

type parser struct {
	e   *Event
	err error
}

func (p *parser) millis(s string) int64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		p.err = err
	}
	return int64(f * float64(time.Millisecond))
}

func (p *parser) number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		p.err = err
	}
	return n
}

func (p *parser) word(w string) {
	name, value, ok := strings.Cut(w, "=")
	e := p.e
	if !ok {
		switch w {
		case "ok", "fail", "info":
			e.Type = Type(w)
		case "dup":
			e.Dup = true
		case "seen":
			e.Seen = true
		case "alive":
			e.Alive = true
		case "alone":
			e.Alone = true
		case "patient":
			e.Patient = true
		default:
			p.err = fmt.Errorf("unknown word %q", w)
		}
		return
	}
	state := func() *State {
		if e.State == nil {
			e.State = &State{}
		}
		return e.State
	}
	queue := func() *Queue {
		if e.Queue == nil {
			e.Queue = &Queue{}
		}
		return e.Queue
	}
	kib := func() uint64 { return p.number(value) << 10 }
	sizes := func() *Bytes {
		if e.Sizes == nil {
			e.Sizes = &Bytes{}
		}
		return e.Sizes
	}
	switch name {
	case "log":
		sizes().Log = kib()
	case "bodies":
		sizes().Bodies = kib()
	case "snapshots":
		sizes().Snapshots = kib()
	case "kept":
		sizes().Kept = p.number(value)
	case "ballast":
		sizes().Ballast = kib()
	case "rest":
		sizes().Rest = kib()
	case "resident":
		sizes().Resident = kib()
	case "peak":
		sizes().Peak = kib()
	case "limits": // log:bodies:memory
		w := strings.Split(value+"::", ":")
		e.Setup.Limits = &Limits{Log: p.number(w[0]) << 10, Bodies: p.number(w[1]) << 10, Memory: w[2] == "memory"}
	case "sized":
		e.Setup.Least.Sized = int(p.number(value))
	case "leader":
		state().Leader = value
	case "serving":
		state().Serving = value == "yes"
	case "nodes":
		e.Setup.Nodes = int(p.number(value))
	case "key":
		e.Key = value
	case "node":
		e.Node = value
	case "seq":
		e.Seq = p.number(value)
	case "session":
		e.Session = value
	case "epoch":
		e.Epoch = p.number(value)
	case "credit":
		e.Credit = int(p.number(value))
	case "lane":
		e.Lane = int(p.number(value))
	case "number":
		e.Number = p.number(value)
	case "okey":
		e.OrderingKey = value
	case "delay":
		e.Delay = p.millis(value)
	case "ttl":
		e.TTL = p.millis(value)
	case "old":
		queue().TooOld = p.number(value)
	case "after":
		e.After = value
	case "attempt":
		e.Attempt = int(p.number(value))
	case "hand":
		e.Hand = int(p.number(value))
	case "lease":
		if e.Setup != nil {
			e.Setup.Lease = p.millis(value)
		} else {
			e.Lease = value
		}
	case "err":
		e.Err = strings.ReplaceAll(value, "+", " ")
	case "carried":
		e.Carried = value
	case "text":
		e.Text = strings.ReplaceAll(value, "+", " ")
	case "copies":
		e.Copies = int(p.number(value))
	case "hold":
		e.Hold = p.millis(value)
	case "life":
		e.Life = int(p.number(value))
	case "expiry":
		e.Setup.Expiry = p.millis(value)
	case "inner":
		e.Inner = value
	case "grace":
		e.Setup.Grace = p.millis(value)
	case "faults":
		e.Setup.Faults = strings.Split(value, ",")
	case "mix":
		e.Setup.Mix = value == "yes"
	case "order":
		e.Setup.ProducerOrder = value == "producer"
	case "older":
		e.Setup.Older = value == "yes"
	case "raw":
		e.Setup.Raw = value == "yes"
	case "redriven":
		e.Setup.Redriven = value == "yes"
	case "limit":
		e.Setup.Limit = int(p.number(value))
	case "graves":
		e.Setup.DeadLetters = value
	case "single":
		e.Setup.Single = strings.Split(value, ",")
	case "publishes":
		e.Setup.Least.Publishes = int(p.number(value))
	case "deliveries":
		e.Setup.Least.Deliveries = int(p.number(value))
	case "digests":
		e.Setup.Least.Digests = int(p.number(value))
	case "verified":
		e.Setup.Least.Verified = int(p.number(value))
	case "counted":
		e.Setup.Least.Counted = int(p.number(value))
	case "changes":
		e.Setup.Least.Changes = int(p.number(value))
	case "stops":
		e.Setup.Least.Stops = int(p.number(value))
	case "cutoff":
		e.Setup.Least.CutOff = int(p.number(value))
	case "overtaken":
		e.Setup.Least.Overtaken = int(p.number(value))
	case "late":
		e.Setup.Least.Late = int(p.number(value))
	case "through":
		e.Setup.Least.Kept = int(p.number(value))
	case "told":
		e.Setup.Least.Told = int(p.number(value))
	case "calm":
		e.Setup.Least.CalmOK = int(p.number(value))
	case "duplicates":
		if e.Setup != nil {
			e.Setup.Least.Duplicates = int(p.number(value))
		} else {
			queue().Duplicates = p.number(value)
		}
	case "role":
		if e.F == Fault {
			e.Role = value
		} else {
			state().Role = value
		}
	case "term":
		state().Term = p.number(value)
	case "applied":
		state().Applied = p.number(value)
	case "digest":
		index, digest, _ := strings.Cut(value, ":")
		state().DigestIndex, state().Digest = p.number(index), digest
	case "stored":
		queue().Stored = p.number(value)
	case "ready":
		queue().Ready = p.number(value)
	case "leased":
		queue().Leased = p.number(value)
	case "acked":
		queue().Acked = p.number(value)
	case "purged":
		queue().Purged = p.number(value)
	case "parked":
		if e.Setup != nil {
			e.Setup.Least.Parked = int(p.number(value))
		} else {
			queue().Parked = p.number(value)
		}
	case "moved":
		if e.Setup != nil {
			e.Setup.Least.Moved = int(p.number(value))
		} else {
			queue().Moved = p.number(value)
		}
	case "keyspassed":
		e.Setup.Least.KeysPassed = int(p.number(value))
	case "keysmoved":
		e.Setup.Least.KeysMoved = int(p.number(value))
	case "dead":
		queue().DeadLettered = p.number(value)
	case "delayed":
		queue().Delayed = p.number(value)
	case "nacked":
		queue().Nacked = p.number(value)
	case "delivered":
		queue().Delivered = p.number(value)
	case "deleted":
		queue().Deleted = p.number(value)
	case "listed": // id@attempt:state,... or server@node:state,...
		for _, w := range strings.Split(value, ",") {
			name, state, _ := strings.Cut(w, ":")
			id, attempt, numbered := strings.Cut(name, "@")
			item := Item{ID: id, State: strings.ReplaceAll(state, "+", " ")}
			if numbered && e.F == Members {
				item.Node = attempt
			} else if numbered {
				item.Attempt = int(p.number(attempt))
			}
			e.Listed = append(e.Listed, item)
		}
	default:
		p.err = fmt.Errorf("unknown name %q", name)
	}
}
