package demo

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/devcluster"
)

const (
	pollEvery   = 50 * time.Millisecond
	askTimeout  = 3 * time.Second
	downAtLeast = 1500 * time.Millisecond // a killed node stays down that long
	backTimeout = 60 * time.Second        // a node that returns must answer by then
)

// share is the number of messages after k of kills+1 equal parts.
func (r *run) share(k int) uint64 { return r.cfg.Messages * uint64(k) / uint64(r.cfg.Kills+1) }

// nemesis kills the leader with SIGKILL each time another part of the messages
// is confirmed, and brings the node back before the next kill, so that a
// majority stays.
func (r *run) nemesis(ctx context.Context) error {
	c, err := client.Dial(ctx, r.url, client.WithLabel("demo nemesis"))
	if err != nil {
		return fmt.Errorf("nemesis: %w", err)
	}
	defer c.Close()
	for k := 1; k <= r.cfg.Kills; k++ {
		if err := r.until(ctx, func() bool { return r.confirmed.Load() >= r.share(k) }); err != nil {
			return err
		}
		if err := r.killLeader(ctx, c); err != nil {
			return err
		}
		r.gate.open(r.share(k + 2))
	}
	r.gate.open(r.cfg.Messages)
	return nil
}

func (r *run) killLeader(ctx context.Context, c *client.Client) error {
	var victim string
	if err := r.until(ctx, func() bool { victim = leaderNow(ctx, c); return victim != "" }); err != nil {
		return err
	}
	killed := time.Now()
	if err := r.cluster.Kill(victim); err != nil {
		return err
	}
	r.gap.Store(0)
	r.event("%s, the leader, killed with kill -9", victim)
	if r.cfg.Nodes > 2 { // of fewer nodes no majority is left
		var leader string
		if err := r.until(ctx, func() bool { leader = leaderNow(ctx, c); return leader != "" && leader != victim }); err != nil {
			return err
		}
		r.event("%s leads, %.1f s after the kill", leader, time.Since(killed).Seconds())
	}
	if err := sleep(ctx, max(0, downAtLeast-time.Since(killed))); err != nil {
		return err
	}
	if err := r.bringBack(ctx, c, victim); err != nil {
		return err
	}
	// The pause has an end when something is confirmed again. With nothing left
	// to publish it has none, and is not worth a word.
	pause := func() time.Duration { return time.Duration(r.gap.Load()) }
	if err := r.until(ctx, func() bool { return pause() > 0 || r.outcomes() == r.cfg.Messages }); err != nil {
		return err
	}
	r.event("%s is back; the longest pause without a confirmed publish was %.1f s", victim, pause().Seconds())
	return nil
}

// bringBack starts a node and waits until it answers.
func (r *run) bringBack(ctx context.Context, c *client.Client, node string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, backTimeout, fmt.Errorf("%s did not come back within %s", node, backTimeout))
	defer cancel()
	if err := r.cluster.Start(node); err != nil {
		return err
	}
	return r.until(ctx, func() bool {
		for _, n := range r.cluster.Nodes() {
			if n.Name == node && n.State == devcluster.Ended {
				// Its port was taken for a moment; where that does not help, ctx ends this.
				r.cluster.Start(node)
				return false
			}
		}
		return answersNow(ctx, c, node)
	})
}

func leaderNow(ctx context.Context, c *client.Client) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leader, err := devcluster.LeaderOf(ctx, c)
	if err != nil {
		return ""
	}
	return leader
}

func answersNow(ctx context.Context, c *client.Client, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reports, err := c.Admin().Nodes(ctx)
	if err != nil {
		return false
	}
	for _, n := range reports {
		if n.Node == node && n.Err == nil {
			return n.Status.Leader != "" // it has heard of the leader, so it takes part
		}
	}
	return false
}

// until polls cond until it holds or ctx ends.
func (r *run) until(ctx context.Context, cond func() bool) error {
	for !cond() {
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
