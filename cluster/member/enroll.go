package member

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/raft"
)

// What nodes say to each other before they share a cluster, and to find each
// other's gossip afterwards: one request and one answer on a stream.
//
//	length u32 | kind u8 | body
const enrollBytesMax = 64 << 10

// The kinds are on the wire and only ever appended to.
const (
	enrollAsk      = 1 // ask -> answer
	enrollProposal = 2 // ClusterInfo -> proposalReply
	enrollJoin     = 3 // JoinRequest -> joinReply; on a join stream
)

// ask is what a node wants to know of another, and says of itself.
type ask struct {
	From  Peer
	Start uint64
	About string // the cluster id the asker has accepted, "" if none
}

// answer tells where the asked node stands, and whom it knows.
type answer struct {
	Seen
	Start uint64
	Peers []Peer
}

type proposalReply struct {
	Accepted bool
	Reason   string
}

// JoinRequest asks a member to add a node to the cluster.
type JoinRequest struct {
	Peer Peer
	// Machine is the newest version of the queue machine that the node knows.
	Machine uint32
}

// JoinAnswer is what the group decided about a JoinRequest.
type JoinAnswer struct {
	// Accepted: the node is in raft's configuration now. A repeated request of
	// the same server id is accepted again.
	Accepted bool
	// Leader is the node address to ask instead, when this node does not lead.
	Leader string
	// Reason says why not, for people; the node asks again later.
	Reason string
}

// joinReply is the answer with what only a member can tell.
type joinReply struct {
	JoinAnswer
	Cluster ClusterInfo // when Accepted
}

const reasonBytesMax = 512

func (a ask) encode() []byte {
	var w writer
	w.peer(a.From)
	w.u64(a.Start)
	w.str(a.About)
	return w.b
}

func decodeAsk(b []byte) (a ask, err error) {
	r := reader{b: b}
	a.From = r.peer()
	a.Start = r.u64()
	a.About = r.str(clusterBytesMax)
	return a, r.done()
}

func (a answer) encode() []byte {
	var w writer
	w.peer(a.Peer)
	w.u8(uint8(a.Stage))
	w.str(a.Cluster)
	w.str(string(a.Minter))
	w.str(a.About)
	w.flag(a.Held)
	w.u64(a.Start)
	w.peers(a.Peers)
	return w.b
}

func decodeAnswer(b []byte) (a answer, err error) {
	r := reader{b: b}
	a.Peer = r.peer()
	a.Stage = Stage(r.u8())
	a.Cluster = r.str(clusterBytesMax)
	a.Minter = raft.ServerID(r.str(serverIDBytesMax))
	a.About = r.str(clusterBytesMax)
	a.Held = r.flag()
	a.Start = r.u64()
	a.Peers = r.peers()
	if r.err == nil && a.Stage > StageMember {
		r.fail("stage")
	}
	return a, r.done()
}

func encodeProposal(c ClusterInfo) []byte {
	var w writer
	w.cluster(c, false)
	return w.b
}

func decodeProposal(b []byte) (c ClusterInfo, err error) {
	r := reader{b: b}
	c = r.cluster(false)
	return c, r.done()
}

func (p proposalReply) encode() []byte {
	var w writer
	w.flag(p.Accepted)
	w.str(p.Reason[:min(len(p.Reason), reasonBytesMax)])
	return w.b
}

func decodeProposalReply(b []byte) (p proposalReply, err error) {
	r := reader{b: b}
	p.Accepted = r.flag()
	p.Reason = r.str(reasonBytesMax)
	return p, r.done()
}

func (j JoinRequest) encode() []byte {
	var w writer
	w.peer(j.Peer)
	w.u32(j.Machine)
	return w.b
}

func decodeJoinRequest(b []byte) (j JoinRequest, err error) {
	r := reader{b: b}
	j.Peer, j.Machine = r.peer(), r.u32()
	if err := r.done(); err != nil {
		return j, err
	}
	return j, checkPeer(j.Peer)
}

func (j joinReply) encode() []byte {
	var w writer
	w.flag(j.Accepted)
	w.str(j.Leader[:min(len(j.Leader), addressBytesMax)])
	w.str(j.Reason[:min(len(j.Reason), reasonBytesMax)])
	if j.Accepted {
		w.cluster(j.Cluster, false)
	}
	return w.b
}

func decodeJoinReply(b []byte) (j joinReply, err error) {
	r := reader{b: b}
	j.Accepted = r.flag()
	j.Leader = r.str(addressBytesMax)
	j.Reason = r.str(reasonBytesMax)
	if j.Accepted {
		j.Cluster = r.cluster(false)
	}
	return j, r.done()
}

// checkPeer refuses what a node can not truthfully say of itself.
func checkPeer(p Peer) error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if NameOf(p.ServerID) != p.Name || string(p.ServerID) == p.Name {
		return fmt.Errorf("%w: server id %q is not of node %q", errMalformed, p.ServerID, p.Name)
	}
	if err := checkAddress(p.Address); err != nil {
		return err
	}
	if p.Gossip != "" {
		return checkAddress(p.Gossip)
	}
	return nil
}

func writeEnroll(c net.Conn, kind uint8, body []byte) error {
	if len(body)+1 > enrollBytesMax {
		return fmt.Errorf("enrollment message of %d bytes", len(body))
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 5+len(body)), uint32(len(body)+1))
	b = append(b, kind)
	_, err := c.Write(append(b, body...))
	return err
}

func readEnroll(c net.Conn) (kind uint8, body []byte, err error) {
	br := bufio.NewReader(c)
	var head [5]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > enrollBytesMax {
		return 0, nil, fmt.Errorf("%w: enrollment message of %d bytes", errMalformed, n)
	}
	body = make([]byte, n-1)
	_, err = io.ReadFull(br, body)
	return head[4], body, err
}

// exchange is one request and its answer over a new stream.
func (s *Streams) exchange(ctx context.Context, address string, p purpose, kind uint8, body []byte) ([]byte, error) {
	c, _, err := s.dial(ctx, address, p, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if err := writeEnroll(c, kind, body); err != nil {
		return nil, err
	}
	k, reply, err := readEnroll(c)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("answer of %s: %w", address, err)
	}
	if k != kind {
		return nil, fmt.Errorf("answer of %s: %w: kind %d", address, errMalformed, k)
	}
	return reply, nil
}

func (s *Streams) ask(ctx context.Context, address, about string) (answer, error) {
	own := s.dir.Identity()
	reply, err := s.exchange(ctx, address, purposeEnroll, enrollAsk, ask{From: own.Self(), Start: own.Start, About: about}.encode())
	if err != nil {
		return answer{}, err
	}
	a, err := decodeAnswer(reply)
	if err == nil {
		err = checkPeer(a.Peer)
	}
	if err != nil {
		return answer{}, fmt.Errorf("answer of %s: %w", address, err)
	}
	return a, nil
}

func (s *Streams) propose(ctx context.Context, address string, c ClusterInfo) (proposalReply, error) {
	reply, err := s.exchange(ctx, address, purposeEnroll, enrollProposal, encodeProposal(c))
	if err != nil {
		return proposalReply{}, err
	}
	return decodeProposalReply(reply)
}

func (s *Streams) join(ctx context.Context, address string, r JoinRequest) (joinReply, error) {
	reply, err := s.exchange(ctx, address, purposeJoin, enrollJoin, r.encode())
	if err != nil {
		return joinReply{}, err
	}
	return decodeJoinReply(reply)
}

// serveEnroll answers the one request of an enrollment stream.
func (s *Streams) serveEnroll(ctx context.Context, c net.Conn, h hello) error {
	kind, body, err := readEnroll(c)
	if err != nil {
		return err
	}
	var reply []byte
	switch {
	case kind == enrollAsk && h.Purpose == purposeEnroll:
		reply, err = s.serveAsk(body, h)
	case kind == enrollProposal && h.Purpose == purposeEnroll:
		reply, err = s.serveProposal(body, h)
	case kind == enrollJoin && h.Purpose == purposeJoin:
		reply, err = s.serveJoin(ctx, body, h)
	default:
		err = fmt.Errorf("%w: request %d on a %s stream", errMalformed, kind, h.Purpose)
	}
	if err != nil {
		return err
	}
	return writeEnroll(c, kind, reply)
}

var errNotItself = errors.New("says it is another node than its hello does")

func (s *Streams) serveAsk(body []byte, h hello) ([]byte, error) {
	a, err := decodeAsk(body)
	if err != nil {
		return nil, err
	}
	if err := checkPeer(a.From); err != nil {
		return nil, err
	}
	if a.From.ServerID != h.ServerID {
		return nil, fmt.Errorf("%s %w", h.ServerID, errNotItself)
	}
	s.known.add(a.From)
	own := s.dir.Identity()
	return answer{
		Seen: Seen{
			Peer: own.Self(), Stage: own.Stage, Cluster: own.Cluster.ID, Minter: own.Cluster.Minter,
			About: a.About, Held: own.Cluster.ID == a.About,
		},
		Start: own.Start,
		Peers: s.known.list(),
	}.encode(), nil
}

func (s *Streams) serveProposal(body []byte, h hello) ([]byte, error) {
	p, err := decodeProposal(body)
	if err != nil {
		return nil, err
	}
	if p.Minter != h.ServerID {
		return nil, fmt.Errorf("%s %w", h.ServerID, errNotItself)
	}
	key := s.dir.operatorKey()
	if p.Keyed != (key != nil) {
		return nil, fmt.Errorf("%w: proposal with another kind of key", errMalformed)
	}
	if p.Keyed {
		copy(p.Secret[:], key)
	}
	last := s.lastRound.Load()
	err = s.dir.update(func(id *Identity) error {
		if err := Judge(last, *id, p); err != nil {
			return err
		}
		if id.Stage != StageEmpty {
			return errUnchanged
		}
		id.Stage, id.Cluster = StageAccepted, p
		return nil
	})
	if err != nil {
		return proposalReply{Reason: err.Error()}.encode(), nil
	}
	return proposalReply{Accepted: true}.encode(), nil
}

func (s *Streams) serveJoin(ctx context.Context, body []byte, h hello) ([]byte, error) {
	r, err := decodeJoinRequest(body)
	if err != nil {
		return nil, err
	}
	if r.Peer.ServerID != h.ServerID {
		return nil, fmt.Errorf("%s %w", h.ServerID, errNotItself)
	}
	s.mu.Lock()
	onJoin := s.onJoin
	s.mu.Unlock()
	own := s.dir.Identity()
	if onJoin == nil || own.Stage != StageMember {
		return joinReply{JoinAnswer: JoinAnswer{Reason: fmt.Sprintf("node %s is not ready", own.Name)}}.encode(), nil
	}
	ja, err := onJoin(ctx, r)
	if err != nil {
		ja = JoinAnswer{Reason: err.Error()}
	}
	return joinReply{JoinAnswer: ja, Cluster: own.Cluster}.encode(), nil
}
