package client

import (
	"context"
	"sync"
)

// scout connects to the other nodes while the leader is silent, until recall. It may
// be slow, and then nothing happens. But when it stands still or is cut off the others
// elect another, and who is connected to them is told at once: much sooner than silence
// is proof enough to give up a connection with requests in flight.
func (c *Client) scout(ctx context.Context, silent *conn) (recall func()) {
	ctx, cancel := context.WithCancel(ctx)
	var out sync.WaitGroup
	for _, n := range c.topo.nodes() {
		if n.Name == silent.welcome.Node {
			continue
		}
		out.Go(func() {
			cn, err := c.connect(ctx, n.Address) // its welcome tells as well
			if err != nil {
				return
			}
			select {
			case <-cn.ended:
			case <-ctx.Done():
			}
			cn.close()
		})
	}
	return func() {
		cancel()
		out.Wait()
	}
}
