package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memorySpare is what a node may take beside the memory for messages, before
	// its garbage is collected more often than it would be.
	memorySpare = 176 << 20
	// memoryLookEvery is how often it is looked at what is in use.
	memoryLookEvery = time.Second
)

// limitMemory keeps the process near what it was given for messages and what it
// needs besides: without a limit the garbage collector lets the heap grow to
// twice what is in use, and the messages of a backlog are most of that. What is
// in use (sessions, records) may need more, and then gets it, since a collector
// that runs all the time helps nobody. GOMEMLIMIT, when set, is left alone.
func limitMemory(ctx context.Context, messages int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(memoryLookEvery)
	defer tick.Stop()
	for {
		metrics.Read(live)
		debug.SetMemoryLimit(memoryLimit(messages, int64(live[0].Value.Uint64())))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// memoryLimit leaves the collector a quarter of what is in use to work with.
func memoryLimit(messages, live int64) int64 {
	return max(messages+memorySpare, live+live/4+32<<20)
}
