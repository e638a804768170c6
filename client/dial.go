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

	"onceq/transport/wire"
)

// round tries every known address once, the leader's first. It returns a
// connection to the leader, or one to a node that does not lead, or why no node
// could be reached.
func (c *Client) round(ctx context.Context, hint string) (leader, other *conn, err error) {
	var reasons []string
	var codes []wire.Code
	tried := map[string]bool{}
	for {
		address := c.nextAddress(hint, tried)
		if address == "" || ctx.Err() != nil {
			break
		}
		tried[address] = true
		cn, err := c.connect(ctx, address)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", address, plain(err)))
			if e := (*Error)(nil); errors.As(err, &e) {
				codes = append(codes, e.Code)
			}
			continue
		}
		if leads, term := c.topo.leads(cn.welcome.Node); leads {
			cn.term = term
			if other != nil {
				other.close()
			}
			return cn, nil, nil
		}
		if other != nil {
			other.close()
		}
		other = cn
	}
	if other != nil {
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
		if err := c.topo.welcome(cn.welcome); err != nil {
			cn.close()
			return nil, err
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
