package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	rejoinLonely = time.Second      // pause between tries while a known node is missing
	rejoinCalm   = 15 * time.Second // and while all are here: two halves that each think so find each other
	nodesMax     = 1024             // processes known through gossip
)

// GossipConfig says how to gossip.
type GossipConfig struct {
	Dir     *Dir
	Streams *Streams
	// Transport carries the gossip; see ListenGossip. It belongs to Gossip from
	// now on, also when StartGossip fails.
	Transport memberlist.Transport
	// Seeds are node addresses given by the operator.
	Seeds []string
	// Book learns where nodes are; may be nil.
	Book *AddressBook
	// OnChange is called after Nodes has changed, on a goroutine of its own, with
	// changes that come close together reported once. It may take its time.
	OnChange func()
	// ProbeInterval is the time between two probes of a node, 1 s by default. A
	// dead node is noticed after four to six of them.
	ProbeInterval time.Duration
	// ProbeTimeout is how long an answer may take, 500 ms by default.
	ProbeTimeout time.Duration
	Logger       *slog.Logger
}

// NodeView is a node as gossip sees it from here.
type NodeView struct {
	Peer
	Start uint64
	Stage Stage
	Disk  uint8 // as set by SetDisk
	Alive bool
}

// Gossip keeps track of which nodes are there and where. It is encrypted with
// the cluster secret and labelled with the cluster id from its first packet on.
//
// Goroutines of ours: one reports changes, one looks for missing nodes. Close
// waits for both; those of the library end on their own soon after.
type Gossip struct {
	cfg    GossipConfig
	self   meta
	list   *memberlist.Memberlist
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // one token: something changed

	mu       sync.Mutex // guards what follows; memberlist calls in under its own lock, so nothing is called under this one
	nodes    map[string]NodeView
	shutdown bool
}

// gossipName is this process in gossip. Each start has its own: a node that was
// killed and returns on other ports is a new entry that is known at once, and
// the old one dies by itself. With the node's name for both the other nodes
// would call it a conflict until they have declared the old one dead
// (memberlist's DeadNodeReclaimTime starts to count only then), and two
// processes of one name would fight for the entry.
func gossipName(id Identity) string {
	return string(id.ServerID) + "#" + strconv.FormatUint(id.Start, 36)
}

// StartGossip begins to gossip. The identity has to be a member's.
func StartGossip(cfg GossipConfig) (*Gossip, error) {
	own := cfg.Dir.Identity()
	if own.Stage != StageMember && own.Stage != StageCommitted {
		cfg.Transport.Shutdown()
		return nil, fmt.Errorf("start gossip: this node is %s and belongs to no cluster", own.Stage)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ProbeInterval <= 0 {
		cfg.ProbeInterval = time.Second
	}
	if cfg.ProbeTimeout <= 0 {
		cfg.ProbeTimeout = min(500*time.Millisecond, cfg.ProbeInterval/2)
	}
	g := &Gossip{
		cfg:  cfg,
		self: meta{Peer: own.Self(), Start: own.Start, Cluster: own.Cluster.ID, Stage: StageMember},
		wake: make(chan struct{}, 1), nodes: make(map[string]NodeView),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	mc, err := g.config(own)
	if err == nil {
		g.list, err = memberlist.Create(mc)
	}
	if err != nil {
		g.cancel()
		cfg.Transport.Shutdown()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.wg.Go(g.report)
	g.wg.Go(g.rejoin)
	return g, nil
}

func (g *Gossip) config(own Identity) (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	mc.Name = gossipName(own)
	mc.Transport = &addressOnly{g.cfg.Transport}
	mc.Label = own.Cluster.ID
	mc.SecretKey = own.Cluster.Secret[:]
	mc.Logger = memberlistLogger(g.cfg.Logger)
	mc.Delegate = gossipDelegate{g}
	mc.Events = gossipEvents{g}
	mc.Alive = gossipEvents{g}
	mc.TCPTimeout = 3 * time.Second
	mc.ProbeInterval = g.cfg.ProbeInterval
	mc.ProbeTimeout = g.cfg.ProbeTimeout
	mc.GossipInterval = min(mc.GossipInterval, g.cfg.ProbeInterval/2)
	if g.self.Peer.Gossip != "" {
		host, port, err := net.SplitHostPort(g.self.Peer.Gossip)
		if err != nil {
			return nil, err
		}
		if mc.AdvertisePort, err = strconv.Atoi(port); err != nil {
			return nil, err
		}
		ip, err := net.ResolveIPAddr("ip", host)
		if err != nil {
			return nil, err
		}
		mc.AdvertiseAddr = ip.String()
	}
	return mc, nil
}

// Nodes lists what is known, this node included, by name. Of several processes
// of one name it has the one that is alive, else the newest.
func (g *Gossip) Nodes() []NodeView {
	g.mu.Lock()
	defer g.mu.Unlock()
	best := make(map[string]NodeView)
	for _, n := range g.nodes {
		b, ok := best[n.Name]
		if !ok || n.Alive && !b.Alive || n.Alive == b.Alive && n.Start > b.Start {
			best[n.Name] = n
		}
	}
	out := make([]NodeView, 0, len(best))
	for _, n := range best {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b NodeView) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// tellTimeout bounds how long SetDisk waits until the news is on its way.
const tellTimeout = time.Second

// SetDisk tells the others how full this node's disk is.
func (g *Gossip) SetDisk(level uint8) error {
	g.mu.Lock()
	g.self.Disk = level
	closed := g.shutdown
	g.mu.Unlock()
	if closed {
		return nil
	}
	return g.list.UpdateNode(tellTimeout)
}

// Leave tells the others that this node goes in order, and waits until one has
// heard it or the time is over.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.mu.Lock()
	closed := g.shutdown
	g.mu.Unlock()
	if closed {
		return nil // memberlist panics here
	}
	return g.list.Leave(timeout)
}

// Close ends gossip without telling anybody. It may be called twice, but not
// beside Leave.
func (g *Gossip) Close() error {
	g.mu.Lock()
	g.shutdown = true
	g.mu.Unlock()
	g.cancel()
	err := g.list.Shutdown()
	g.wg.Wait()
	return err
}

// report tells the book, the identity file and OnChange about changes.
func (g *Gossip) report() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.wake:
		}
		var peers []Peer
		for _, n := range g.Nodes() {
			if g.cfg.Book != nil && n.Alive {
				g.cfg.Book.Learn(n.ServerID, n.Address, n.Start)
			}
			if n.Name != g.self.Peer.Name {
				peers = append(peers, n.Peer)
			}
		}
		if len(peers) > 0 { // an empty list would forget whom to look for
			if err := g.cfg.Dir.setPeers(peers); err != nil && g.ctx.Err() == nil && !errors.Is(err, ErrDirClosed) {
				g.cfg.Logger.Error("could not note the known nodes", "error", err)
			}
		}
		if g.cfg.OnChange != nil {
			g.cfg.OnChange()
		}
	}
}

// rejoin looks for nodes that should be here and are not, for ever: those named
// by the operator, founding members and whoever was known last.
func (g *Gossip) rejoin() {
	for {
		pause := rejoinCalm
		if g.look() {
			pause = rejoinLonely
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(pause/2 + mathrand.N(pause)):
		}
	}
}

// look tries every missing node once and says whether some are still missing.
func (g *Gossip) look() (missing bool) {
	own := g.cfg.Dir.Identity()
	here := make(map[string]bool) // addresses of live nodes, of both kinds
	for _, n := range g.Nodes() {
		if n.Alive {
			here[n.Address], here[n.Gossip] = true, true
		}
	}
	names := make(map[string]bool)
	for _, n := range g.Nodes() {
		names[n.Name] = n.Alive
	}
	addresses := slices.Clone(g.cfg.Seeds)
	for _, p := range slices.Concat(own.Peers, own.Cluster.Members) {
		if names[p.Name] || p.ServerID == own.ServerID {
			continue
		}
		missing = true
		addresses = append(addresses, p.Address)
		if p.Gossip != "" && !here[p.Gossip] && g.ctx.Err() == nil {
			g.list.Join([]string{p.Gossip})
		}
	}
	for _, address := range unique(addresses, own.Address) {
		if here[address] {
			continue
		}
		ctx, cancel := context.WithTimeout(g.ctx, askTimeout)
		a, err := g.cfg.Streams.ask(ctx, address, "")
		cancel()
		if g.ctx.Err() != nil {
			return true
		}
		if err != nil || a.Peer.ServerID == own.ServerID {
			continue
		}
		if a.Cluster == own.Cluster.ID && a.Stage >= StageCommitted && a.Peer.Gossip != "" && !here[a.Peer.Gossip] {
			g.list.Join([]string{a.Peer.Gossip})
			missing = true // look again soon, through what it knows
		}
	}
	return missing
}

func (g *Gossip) note(n *memberlist.Node, alive bool) {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return // NotifyAlive has refused it
	}
	g.mu.Lock()
	for key, old := range g.nodes {
		// An older process of the same directory is over, whatever gossip thinks.
		if old.ServerID == m.Peer.ServerID && old.Start < m.Start {
			delete(g.nodes, key)
		}
	}
	newer := false
	for _, o := range g.nodes {
		newer = newer || o.ServerID == m.Peer.ServerID && o.Start > m.Start
	}
	if !newer {
		if _, known := g.nodes[n.Name]; !known && len(g.nodes) >= nodesMax {
			g.evict()
		}
		if _, known := g.nodes[n.Name]; known || len(g.nodes) < nodesMax {
			g.nodes[n.Name] = NodeView{Peer: m.Peer, Start: m.Start, Stage: m.Stage, Disk: m.Disk, Alive: alive}
		}
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// evict forgets the dead process that was started first.
func (g *Gossip) evict() {
	victim, start := "", uint64(0)
	for key, n := range g.nodes {
		if !n.Alive && (victim == "" || n.Start < start) {
			victim, start = key, n.Start
		}
	}
	delete(g.nodes, victim)
}

// gossipEvents hears memberlist out, under memberlist's lock: nothing here may
// wait or call back into it.
type gossipEvents struct{ g *Gossip }

func (e gossipEvents) NotifyJoin(n *memberlist.Node)   { e.g.note(n, true) }
func (e gossipEvents) NotifyUpdate(n *memberlist.Node) { e.g.note(n, true) }
func (e gossipEvents) NotifyLeave(n *memberlist.Node)  { e.g.note(n, false) }

// NotifyAlive keeps out what is not a node of this cluster.
func (e gossipEvents) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if m.Cluster != e.g.self.Cluster {
		return fmt.Errorf("node of cluster %s", m.Cluster)
	}
	return nil
}

// gossipDelegate gives the metadata; nothing else travels over gossip.
type gossipDelegate struct{ g *Gossip }

func (d gossipDelegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.self.encode()
}
func (gossipDelegate) NotifyMsg([]byte)                {}
func (gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (gossipDelegate) LocalState(bool) []byte          { return nil }
func (gossipDelegate) MergeRemoteState([]byte, bool)   {}
