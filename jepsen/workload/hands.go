package workload

import (
	"bytes"
	"runtime"
	"sync"
)

// hands numbers the goroutines that a consumer's handlers are called on, from 1. The
// library calls one handler after the other on each of them.
type hands struct {
	mu sync.Mutex
	of map[string]int
}

// mine is the number of the goroutine that asks.
func (h *hands) mine() int {
	id := goroutine()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string]int{}
	}
	if h.of[id] == 0 {
		h.of[id] = len(h.of) + 1
	}
	return h.of[id]
}

// goroutine names the goroutine that asks as a stack trace does, "goroutine 17". The name
// is never given again. For a program that is to know nothing of the library's inside there
// is no other way to tell which handler follows which.
func goroutine() string {
	var trace [64]byte
	name, _, _ := bytes.Cut(trace[:runtime.Stack(trace[:], false)], []byte(" ["))
	return string(name)
}
