package raftlog

import "github.com/hashicorp/raft"

// wrapper is a transport around another one.
type wrapper interface {
	raft.Transport
	raft.WithClose
	raft.WithPeers
	unwrap() raft.Transport
}

// forward is the part that all wrappers share: the optional interfaces of raft. Close and the peers of loopback transports may be
// there without meaning. RequestPreVote may not, since raft takes its presence for a promise, so expose adds it where it is.
type forward struct{ raft.Transport }

func (f forward) unwrap() raft.Transport { return f.Transport }

func (f forward) Close() error {
	if c, ok := f.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

func (f forward) Connect(peer raft.ServerAddress, t raft.Transport) {
	if p, ok := f.Transport.(raft.WithPeers); ok {
		p.Connect(peer, innermost(t)) // raft's loopback transports connect to their own kind only
	}
}

func (f forward) Disconnect(peer raft.ServerAddress) {
	if p, ok := f.Transport.(raft.WithPeers); ok {
		p.Disconnect(peer)
	}
}

func (f forward) DisconnectAll() {
	if p, ok := f.Transport.(raft.WithPeers); ok {
		p.DisconnectAll()
	}
}

type withPreVote struct {
	wrapper
	raft.WithPreVote
}

// expose returns w, with RequestPreVote if the transport that it wraps has it.
func expose(w wrapper) raft.Transport {
	if pv, ok := w.unwrap().(raft.WithPreVote); ok {
		return withPreVote{w, pv}
	}
	return w
}

func innermost(t raft.Transport) raft.Transport {
	for {
		w, ok := t.(interface{ unwrap() raft.Transport })
		if !ok {
			return t
		}
		t = w.unwrap()
	}
}
