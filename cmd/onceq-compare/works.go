package main

import (
	"context"
	"fmt"
	"time"
)

// work is one line of work that each system does.
type work struct {
	name, help           string
	kind                 func(*bench, context.Context, *result) error
	size                 int // bytes of a body
	producers, consumers int
	inFlight, prefetch   int     // a client
	rate                 float64 // messages a second in all; 0: as fast as confirmations allow
	kills                bool    // it leaves a node dead
}

// sizes says how much of it.
type sizes struct {
	time, warm time.Duration
	backlog    int
	dir        string // where the data is
}

var works = []work{
	{name: "pub-16", help: "publish 16 B, 4 producers with 1,024 unconfirmed each", kind: (*bench).steady, size: 16, producers: 4, inFlight: 1024},
	{name: "pub-1k", help: "publish 1 KiB, the same", kind: (*bench).steady, size: 1024, producers: 4, inFlight: 1024},
	{name: "e2e-16", help: "end to end 16 B, 4 consumers with a prefetch of 1,024 more", kind: (*bench).steady, size: 16, producers: 4, inFlight: 1024, consumers: 4, prefetch: 1024},
	{name: "e2e-1k", help: "end to end 1 KiB, the same", kind: (*bench).steady, size: 1024, producers: 4, inFlight: 1024, consumers: 4, prefetch: 1024},
	{name: "one-1k", help: "one producer, 1 KiB, one at a time", kind: (*bench).steady, size: 1024, producers: 1, inFlight: 1},
	{name: "paced-1k", help: "end to end 1 KiB, 2,000/s offered (open loop)", kind: (*bench).steady, size: 1024, producers: 4, inFlight: 1024, consumers: 4, prefetch: 1024, rate: 2000},
	{name: "drain-1k", help: "drain a backlog of 1 KiB messages with 4 consumers", kind: (*bench).drain, size: 1024, producers: 4, inFlight: 1024, consumers: 4, prefetch: 1024},
	{name: "failover", help: "kill -9 of the leader, one producer, 1 KiB", kind: (*bench).failover, size: 1024, producers: 1, inFlight: 1, consumers: 1, prefetch: 64, kills: true},
}

// result is what one system did in one piece of work, once. Servers count
// together.
type result struct {
	System    string  `json:"system"`
	Work      string  `json:"work"`
	Run       int     `json:"run"`
	Messages  float64 `json:"messages"`
	PerSecond float64 `json:"per_second,omitempty"`
	P50       float64 `json:"p50_ms,omitempty"`
	P99       float64 `json:"p99_ms,omitempty"`
	P999      float64 `json:"p999_ms,omitempty"`
	ServerCPU float64 `json:"server_cpu_s_per_1000,omitempty"`
	LoadCPU   float64 `json:"load_cpu_s_per_1000,omitempty"`
	Written   float64 `json:"disk_bytes_per_message,omitempty"`
	RSS       float64 `json:"server_rss_bytes,omitempty"`
	Gap       float64 `json:"gap_s,omitempty"`
	Lost      float64 `json:"lost,omitempty"`
	Twice     float64 `json:"delivered_twice,omitempty"`
	Err       string  `json:"error,omitempty"`
}

// do runs one piece of work on a queue of its own.
func do(ctx context.Context, c cluster, w work, s sizes, r *result) error {
	queue := fmt.Sprintf("w%d", time.Now().UnixNano())
	if err := c.Create(ctx, queue, w.consumers*w.prefetch); err != nil {
		return fmt.Errorf("create a queue: %w", err)
	}
	if !w.kills {
		// Before the next work starts: what is left over would cost it.
		defer c.Delete(context.WithoutCancel(ctx), queue)
	}
	atRest(ctx, func() float64 { return deviceWritten(s.dir) }, time.Second)
	return w.kind(newBench(c, w, s, queue), ctx, r)
}

// A disk is at rest when it takes less than that in a second. What a work leaves behind,
// a snapshot or a compaction, is not to be counted for the next, for restBound at most.
const (
	restBytes = 1 << 20
	restBound = 20 // looks
)

// atRest waits until the disk is.
func atRest(ctx context.Context, written func() float64, every time.Duration) {
	last := written()
	for range restBound {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
		now := written()
		if now-last < restBytes {
			return
		}
		last = now
	}
}
