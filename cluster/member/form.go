package member

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	formInterval    = 100 * time.Millisecond
	formEagerRounds = 100 // after so many rounds without progress the pause is formIdleFactor times as long
	formIdleFactor  = 10
	askTimeout      = time.Second
	joinTimeout     = enrollTimeout + handshakeTimeout
	joinRedirects   = 4
)

// FormConfig says how a node finds its cluster.
type FormConfig struct {
	Dir     *Dir
	Streams *Streams
	// Seeds are node addresses given by the operator. A cluster is not formed
	// before each of them has answered.
	Seeds []string
	// Expect is the number of nodes that form a new cluster, the same on each of
	// them; 0: this node only joins.
	Expect int
	// Interval is the pause between two rounds of asking, 100 ms by default.
	Interval time.Duration
	// Machine is the newest version of the queue machine that this build knows.
	Machine uint32
	Logger  *slog.Logger
}

// Formed is the outcome of Form.
type Formed struct {
	// Bootstrap: this node, and no other, has to bootstrap raft with
	// Identity.Cluster.Members as voters and call Dir.MarkBootstrapped then.
	Bootstrap bool
	// Joined: a member has just added this node to the cluster.
	Joined   bool
	Identity Identity
}

// Form asks round about until this node belongs to a cluster: a new one of
// Expect nodes, or one that exists and takes it in. For a node that belongs to
// one already it returns at once. It ends early only when ctx ends or the
// identity can not be written, and may be called again then.
func Form(ctx context.Context, cfg FormConfig) (Formed, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = formInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &former{cfg: cfg, dir: cfg.Dir, streams: cfg.Streams}
	for rounds := 0; ; rounds++ {
		if f.dir.Identity().Stage >= StageCommitted {
			break // nobody needs to be asked
		}
		round := f.look(ctx)
		if err := ctx.Err(); err != nil {
			return Formed{}, err
		}
		again, err := f.act(ctx, round)
		if err != nil {
			return Formed{}, err
		}
		if again {
			rounds = 0
			continue
		}
		pause := cfg.Interval
		if rounds > formEagerRounds {
			pause *= formIdleFactor
		}
		select {
		case <-ctx.Done():
			return Formed{}, ctx.Err()
		case <-time.After(pause/2 + mathrand.N(pause)):
		}
	}
	own := f.dir.Identity()
	return Formed{Bootstrap: own.Stage == StageCommitted, Joined: f.joined, Identity: own}, nil
}

type former struct {
	cfg     FormConfig
	dir     *Dir
	streams *Streams
	reason  string // logged last
	joined  bool
}

// look asks every address known, all at once, and keeps the outcome for Judge.
func (f *former) look(ctx context.Context) Round {
	own := f.dir.Identity()
	addresses := slices.Clone(f.cfg.Seeds)
	for _, p := range slices.Concat(own.Cluster.Members, own.Peers, f.streams.known.list()) {
		addresses = append(addresses, p.Address)
	}
	addresses = unique(addresses, own.Address)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	about := ""
	if own.Stage == StageAccepted {
		about = own.Cluster.ID
	}
	answers := make([]answer, len(addresses))
	errs := make([]error, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() { answers[i], errs[i] = f.streams.ask(ctx, address, about) })
	}
	wg.Wait()

	// The identity is read again: it may have changed while others were asked,
	// and an answer is never older than what was on disk when it was asked for.
	r := Round{Own: f.dir.Identity(), Expect: f.cfg.Expect}
	for i, a := range answers {
		if errs[i] != nil {
			if slices.Contains(f.cfg.Seeds, addresses[i]) {
				r.Silent = append(r.Silent, fmt.Sprintf("%s (%v)", addresses[i], errs[i]))
			}
			continue
		}
		f.streams.known.add(slices.DeleteFunc(append(a.Peers, a.Peer), func(p Peer) bool { return p.ServerID == own.ServerID })...)
		if a.Peer.ServerID == own.ServerID ||
			slices.ContainsFunc(r.Seen, func(s Seen) bool { return s.Peer.ServerID == a.Peer.ServerID }) {
			continue
		}
		r.Seen = append(r.Seen, a.Seen)
	}
	f.streams.lastRound.Store(&r)
	return r
}

func unique(addresses []string, own string) []string {
	var out []string
	for _, a := range addresses {
		if a != own && a != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// errMoved, returned by an edit, means that the identity changed since the
// decision (a proposal was accepted meanwhile): decide again.
var errMoved = errors.New("identity has moved on")

// act carries out one decision. again says that the next round can come at once.
func (f *former) act(ctx context.Context, r Round) (again bool, err error) {
	a := Decide(r)
	switch a.Kind {
	case ActionWait:
		f.say(a.Reason)
		return false, f.dir.failed()
	case ActionMint:
		c := ClusterInfo{ID: randomHex(16), Incarnation: randomIncarnation(), Minter: r.Own.ServerID, Members: a.Members}
		if key := f.dir.operatorKey(); key != nil {
			copy(c.Secret[:], key)
			c.Keyed = true
		} else {
			rand.Read(c.Secret[:])
		}
		f.cfg.Logger.Info("forming a cluster", "cluster", c.ID, "nodes", names(c.Members))
		return f.edit(r.Own, func(id *Identity) { id.Stage, id.Cluster = StageMinted, c })
	case ActionPropose:
		return f.propose(ctx, r, a)
	case ActionCommit:
		f.cfg.Logger.Info("cluster formed", "cluster", r.Own.Cluster.ID, "nodes", names(r.Own.Cluster.Members))
		return f.edit(r.Own, func(id *Identity) { id.Stage = StageCommitted })
	case ActionWithdraw, ActionRelease:
		f.cfg.Logger.Warn("gave up a cluster that was not formed yet", "cluster", r.Own.Cluster.ID, "why", a.Reason)
		return f.edit(r.Own, func(id *Identity) { id.Stage, id.Cluster = StageEmpty, ClusterInfo{} })
	case ActionMember:
		f.cfg.Logger.Info("cluster formed", "cluster", r.Own.Cluster.ID, "nodes", names(r.Own.Cluster.Members))
		return f.edit(r.Own, func(id *Identity) { id.Stage = StageMember })
	case ActionJoin:
		return f.join(ctx, r, a.Targets)
	case ActionDone:
		return true, nil
	}
	panic(fmt.Sprintf("action %d", a.Kind))
}

// edit changes the identity if it still is what the decision was made from.
func (f *former) edit(from Identity, change func(id *Identity)) (bool, error) {
	err := f.dir.update(func(id *Identity) error {
		if id.Stage != from.Stage || id.Cluster.ID != from.Cluster.ID {
			return errMoved
		}
		change(id)
		return nil
	})
	if errors.Is(err, errMoved) {
		err = nil
	}
	return err == nil, err
}

// propose asks all that are missing at once. Whether they accepted is decided
// from their answers in the next round, the same way as after a restart.
func (f *former) propose(ctx context.Context, r Round, a Action) (again bool, err error) {
	f.say(a.Reason)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	accepted := make([]bool, len(a.Targets))
	reasons := make([]string, len(a.Targets))
	var wg sync.WaitGroup
	for i, p := range a.Targets {
		wg.Go(func() {
			reply, err := f.streams.propose(ctx, p.Address, r.Own.Cluster)
			if accepted[i] = reply.Accepted; err != nil {
				reasons[i] = err.Error()
			} else {
				reasons[i] = reply.Reason
			}
		})
	}
	wg.Wait()
	for i := range a.Targets {
		if reasons[i] != "" {
			f.say(reasons[i])
		}
	}
	return !slices.Contains(accepted, false), f.dir.failed()
}

// join asks one member after the other, and the leader they name, to add this
// node.
func (f *former) join(ctx context.Context, r Round, members []Peer) (again bool, err error) {
	for _, m := range members {
		address := m.Address
		for range joinRedirects {
			jctx, cancel := context.WithTimeout(ctx, joinTimeout)
			reply, err := f.streams.join(jctx, address, JoinRequest{Peer: r.Own.Self(), Machine: f.cfg.Machine})
			cancel()
			switch {
			case err != nil:
				f.say(fmt.Sprintf("join through %s: %v", address, err))
			case reply.Accepted:
				return f.joinedTo(r, reply.Cluster)
			default:
				f.say(fmt.Sprintf("join through %s: %s", address, reply.Reason))
			}
			if err != nil || reply.Leader == "" || reply.Leader == address {
				break
			}
			address = reply.Leader
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	return false, f.dir.failed()
}

func (f *former) joinedTo(r Round, c ClusterInfo) (bool, error) {
	if key := f.dir.operatorKey(); key != nil {
		copy(c.Secret[:], key)
	} else if c.Keyed {
		return false, fmt.Errorf("%w: cluster %s has an operator's key and this node was given none", ErrOtherCluster, c.ID)
	}
	if c.ID == "" || c.Incarnation == 0 {
		return false, fmt.Errorf("join: %w: no cluster id in the answer", errMalformed)
	}
	if r.Own.Former != "" && r.Own.Former != c.ID {
		f.say(fmt.Sprintf("a member of cluster %s answered, this directory belonged to %s", c.ID, r.Own.Former))
		return false, nil
	}
	ok, err := f.edit(r.Own, func(id *Identity) {
		id.Stage, id.Cluster, id.Peers, id.Former = StageMember, c, nil, ""
		for _, s := range r.Seen {
			if len(id.Peers) < peersMax {
				id.Peers = append(id.Peers, s.Peer)
			}
		}
	})
	if ok && f.dir.Identity().Cluster.ID == c.ID {
		f.joined = true
		f.cfg.Logger.Info("joined the cluster", "cluster", c.ID)
	}
	return ok, err
}

// say logs what the node waits for, once for each new reason.
func (f *former) say(reason string) {
	if reason != f.reason {
		f.reason = reason
		f.cfg.Logger.Info("not in a cluster yet", "why", reason)
	}
}

func names(ps []Peer) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.Name
	}
	return out
}

func randomIncarnation() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if v := binary.BigEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}
