package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// memorySpare is what a node may take beside the memory for messages, before
	// its garbage is collected more often than it would be.
	memorySpare = 200 << 20
	// percentMost and percentLeast bound how much may become garbage before it is
	// collected, in per cent of what is in use.
	percentMost, percentLeast = 100, 20
	// belowLimit is how far below the limit of memory the collector is to keep, in
	// per cent. From 95 on Go gives memory back to the system while the heap grows
	// into it again, 64 KiB at a time, which leaves no large page whole.
	belowLimit = 92
)

// limitMemory keeps the process near what it was given for messages and what it
// needs besides: without that the garbage collector lets the heap grow to twice
// what is in use, and the messages of a backlog are most of that. What is in use
// (sessions, records) may need more, and then gets it, since a collector that runs
// all the time helps nobody. GOMEMLIMIT and GOGC, when set, are left alone.
//
// After each collection, when it is known what is in use, it says how much may be
// taken until the next; the limit is there for what comes faster than that.
func limitMemory(ctx context.Context, messages int64) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	collected := collections(ctx)
	limit, percent := int64(0), 0
	for {
		u := readUsage()
		// Each of the two stops the process for a moment.
		if l := memoryLimit(messages, u.live); l != limit {
			limit = l
			debug.SetMemoryLimit(limit)
		}
		if p := collectPercent(limit, u); p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
		select {
		case <-collected:
		case <-ctx.Done():
			return
		}
	}
}

// collections tells of each collection of garbage that has ended, until ctx ends.
func collections(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	var watch func()
	watch = func() {
		// Nobody holds it: it is found by the next collection.
		runtime.AddCleanup(&struct{ _ *int }{}, func(struct{}) {
			select {
			case c <- struct{}{}:
			default:
			}
			if ctx.Err() == nil {
				watch()
			}
		}, struct{}{})
	}
	watch()
	return c
}

// usage is what memory is used for, in bytes.
type usage struct {
	live  int64 // in the heap, as of the last collection
	other int64 // not in the heap
}

func readUsage() usage {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(s)
	u := usage{live: int64(s[0].Value.Uint64()), other: int64(s[1].Value.Uint64())}
	for _, heap := range s[2:] {
		u.other -= int64(heap.Value.Uint64())
	}
	return u
}

// memoryLimit leaves the collector a quarter of what is in use to work with.
func memoryLimit(messages, live int64) int64 {
	return max(messages+memorySpare, live+live/4+32<<20)
}

// collectPercent is how much may become garbage, for the heap to end below the limit.
func collectPercent(limit int64, u usage) int {
	room := limit/100*belowLimit - u.other - u.live
	return int(min(max(room*100/max(u.live, 1), percentLeast), percentMost))
}
