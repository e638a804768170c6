package cluster

import (
	"context"
	"errors"
	"time"

	"onceq/cluster/raftlog"
)

const (
	// scrubPause comes after each piece that is read: a few MiB a
	// second at most, which a disk that is busy does not notice.
	scrubPause = 250 * time.Millisecond
	// scrubFirst is how long after its start a node begins.
	scrubFirst = time.Minute
)

// scrub reads the whole log and the files of the newest snapshot again and again,
// slowly, so that damage is found while the other nodes still have what it is in. What it
// finds in the log ends the node. Over a snapshot that is damaged, whoever finds that,
// another is taken, and read soon: whether it is damaged too says what it is made from.
func (g *group) scrub(ctx context.Context, store *raftlog.Store) {
	soon := min(scrubFirst, g.scrubEvery)
	log, files := time.NewTimer(soon), time.NewTimer(soon)
	defer log.Stop()
	defer files.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.damaged:
			files.Reset(soon)
		case <-files.C:
			g.scrubFiles(ctx, store)
			files.Reset(g.scrubEvery)
		case <-log.C:
			read, err := store.Scrub(ctx, scrubPause)
			if err != nil {
				return // the node ends: it was told to, or the store has called Fatal
			}
			g.log.Debug("read the log through", "entries", read)
			log.Reset(g.scrubEvery)
		}
	}
}

func (g *group) scrubFiles(ctx context.Context, store *raftlog.Store) {
	bytes, err := store.ScrubSnapshot(ctx, scrubPause)
	switch {
	case err == nil:
		g.log.Debug("read the newest snapshot through", "bytes", bytes)
	case ctx.Err() == nil && !errors.Is(err, raftlog.ErrSnapshotDamaged): // that was told
		g.log.Warn("read the newest snapshot through", "error", err)
	}
}
