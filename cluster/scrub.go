package cluster

import (
	"context"
	"time"

	"onceq/cluster/raftlog"
)

const (
	// scrubPause comes after each piece of the log that is read: a few MiB a
	// second at most, which a disk that is busy does not notice.
	scrubPause = 250 * time.Millisecond
	// scrubFirst is how long after its start a node begins.
	scrubFirst = time.Minute
)

// scrub reads the whole log again and again, slowly, so that damage is found
// while the other nodes still have the entry. What it finds ends the node.
func (g *group) scrub(ctx context.Context, store *raftlog.Store) {
	timer := time.NewTimer(min(scrubFirst, g.scrubEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		read, err := store.Scrub(ctx, scrubPause)
		if err != nil {
			return // the node ends: it was told to, or the store has called Fatal
		}
		g.log.Debug("read the log through", "entries", read)
		timer.Reset(g.scrubEvery)
	}
}
