package devcluster

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Bounds of a temporary cluster's start.
const (
	startTries   = 3 // another process may take a port that was free a moment ago
	readyTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
)

// Temporary starts a cluster in a new temporary directory, at free ports, and
// waits until it serves. cfg.Dir is ignored. end stops it and, unless keep,
// removes the directory.
func Temporary(ctx context.Context, cfg Config, prefix string) (c *Cluster, end func(keep bool), err error) {
	cfg.AnyPorts, cfg.Port = true, 0
	for try := 1; ; try++ {
		cfg.Dir, err = os.MkdirTemp("", prefix)
		if err != nil {
			return nil, nil, err
		}
		c, err = startAll(ctx, cfg)
		if err == nil {
			dir := cfg.Dir
			return c, func(keep bool) {
				stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
				defer cancel()
				c.Close(stopping)
				if !keep {
					os.RemoveAll(dir)
				}
			}, nil
		}
		os.RemoveAll(cfg.Dir)
		if ctx.Err() != nil || try == startTries {
			return nil, nil, fmt.Errorf("start a temporary cluster: %w", err)
		}
	}
}

func startAll(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if err = c.StartAll(); err == nil {
		ready, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("after %s", readyTimeout))
		_, err = c.WaitReady(ready)
		cancel()
	}
	if err != nil {
		killed, cancel := context.WithCancel(context.Background())
		cancel() // nothing in it is worth an orderly end
		c.Close(killed)
		return nil, err
	}
	return c, nil
}
