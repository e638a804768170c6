package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"onceq/transport/wire"
)

// dialStagger is how long a node may take to answer before the next one is
// tried beside it: one that hangs must not hold up the way to the others.
const dialStagger = 250 * time.Millisecond

// round tries every known address once, the leader's first. It returns a
// connection to the leader, or one to a node that does not lead, or why no node
// could be reached.
func (c *Client) round(ctx context.Context, hint string) (leader, other *conn, err error) {
	type answer struct {
		address string
		conn    *conn
		err     error
	}
	var reasons []string
	var codes []wire.Code
	tried := map[string]bool{}
	answers := make(chan answer)
	asking := 0
	dials, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		for ; asking > 0; asking-- {
			if a := <-answers; a.conn != nil {
				a.conn.close()
			}
		}
	}()
	ask := func() bool {
		address := c.nextAddress(hint, tried)
		if address == "" || ctx.Err() != nil {
			return false
		}
		tried[address] = true
		asking++
		go func() {
			cn, err := c.connect(dials, address)
			answers <- answer{address, cn, err}
		}()
		return true
	}
	stagger := time.NewTimer(dialStagger)
	defer stagger.Stop()
	lead := func(cn *conn) bool {
		leads, term := c.topo.leads(cn.welcome.Node)
		if leads {
			cn.term = term
		}
		return leads
	}
	for asking > 0 || ask() {
		news := c.topo.news()
		if other != nil && lead(other) {
			return other, nil, nil // it was elected, or began to serve, after it was asked
		}
		stagger.Reset(dialStagger)
		select {
		case <-stagger.C:
			ask()
			continue
		case <-news:
			continue
		case a := <-answers:
			asking--
			if a.err != nil {
				reasons = append(reasons, fmt.Sprintf("%s: %v", a.address, plain(a.err)))
				if e := (*Error)(nil); errors.As(a.err, &e) {
					codes = append(codes, e.Code)
				}
				continue
			}
			if lead(a.conn) {
				if other != nil {
					other.close()
				}
				return a.conn, nil, nil
			}
			if other != nil {
				other.close()
			}
			other = a.conn
		}
	}
	switch {
	case other != nil && lead(other):
		return other, nil, nil
	case other != nil:
		return nil, other, nil
	}
	if ctx.Err() != nil {
		return nil, nil, newError(wire.CodeUnreachable, "cannot reach any node (tried %s)", strings.Join(reasons, "; ")).because(causeOf(ctx))
	}
	// When all say the same, that is the error.
	if len(codes) == len(reasons) && len(codes) > 0 && len(slices.Compact(codes)) == 1 {
		return nil, nil, newError(codes[0], "no node can be used (tried %s)", strings.Join(reasons, "; "))
	}
	return nil, nil, newError(wire.CodeUnreachable, "cannot reach any node (tried %s): check the addresses, and that the nodes are up", strings.Join(reasons, "; "))
}

// plain leaves out what net says around the reason: the address is there already.
func plain(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if sys := (*os.SyscallError)(nil); errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}

// nextAddress is the best address not tried yet, "" when all were.
func (c *Client) nextAddress(hint string, tried map[string]bool) string {
	for _, a := range []string{hint, c.topo.leader()} {
		if a != "" && !tried[a] {
			return a
		}
	}
	all := slices.DeleteFunc(c.topo.addresses(), func(a string) bool { return tried[a] })
	if len(all) == 0 {
		return ""
	}
	if c.topo.clusterID() == "" {
		return all[0] // the first address that answers says which cluster is meant
	}
	return all[rand.N(len(all))]
}

// connect dials a node and checks that it belongs to this cluster.
func (c *Client) connect(ctx context.Context, address string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	hello := wire.Hello{Version: wire.Version, Client: c.o.client(), Cluster: c.topo.clusterID()}
	cn, err := func() (*conn, error) {
		nc, err := c.o.dial(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		cn, err := connect(ctx, nc, address, hello, c.push)
		if err != nil {
			return nil, err
		}
		restored, err := c.topo.welcome(cn.welcome)
		if err != nil {
			cn.close()
			return nil, err
		}
		if restored {
			c.o.logger.Warn("the cluster was restored from a backup", "cluster", cn.welcome.Cluster, "incarnation", cn.welcome.Incarnation)
			c.forgetQueues()
		}
		return cn, nil
	}()
	if err != nil {
		c.connectErrors.Add(1)
		return nil, err
	}
	c.connects.Add(1)
	return cn, nil
}
