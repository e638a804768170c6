package outbox

import (
	"sync"

	"onceq/client"
)

// resultsMax is how many results are remembered for Wait, and how many may wait for
// the function of WithResults.
const resultsMax = 4096

// Result is what became of an entry.
type Result struct {
	Number  Number
	Receipt client.Receipt // when Err is nil
	// Err is nil when the entry is stored, *HeldError when somebody has to decide, or
	// ErrDiscarded.
	Err error
}

// results tells what became of entries, once that is on disk.
type results struct {
	f    func(Result) // nil for none
	room func()       // called when f has caught up
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	recent  map[Number]Result
	order   []Number // of recent, a ring
	next    int      // of order
	waiters map[Number][]chan Result
	queue   []Result // for f
	ready   sync.Cond
	ended   bool
}

func newResults(f func(Result), room func()) *results {
	r := &results{f: f, room: room, recent: map[Number]Result{}, waiters: map[Number][]chan Result{}}
	r.ready.L = &r.mu
	if f != nil {
		r.wg.Go(r.run)
	}
	return r
}

// behind says that f has too much to do to take more.
func (r *results) behind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue) >= resultsMax
}

func (r *results) tell(all []Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range all {
		for _, w := range r.waiters[one.Number] {
			w <- one
		}
		delete(r.waiters, one.Number)
		r.remember(one)
	}
	if r.f != nil {
		r.queue = append(r.queue, all...)
		r.ready.Signal()
	}
}

func (r *results) remember(one Result) {
	_, again := r.recent[one.Number] // one that was held and resent
	r.recent[one.Number] = one
	switch {
	case again:
	case len(r.order) < resultsMax:
		r.order = append(r.order, one.Number)
	default:
		delete(r.recent, r.order[r.next])
		r.order[r.next] = one.Number
		r.next = (r.next + 1) % resultsMax
	}
}

// open forgets that an entry was held.
func (r *results) open(n Number) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.recent[n]; ok {
		delete(r.recent, n)
		for i, o := range r.order {
			if o == n {
				r.order[i] = 0 // no entry's
			}
		}
	}
}

// wait returns the result of an entry, or where it will come.
func (r *results) wait(n Number) (chan Result, Result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one, ok := r.recent[n]; ok {
		return nil, one, true
	}
	w := make(chan Result, 1)
	r.waiters[n] = append(r.waiters[n], w)
	return w, Result{}, false
}

func (r *results) forget(n Number, w chan Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.waiters[n]
	for i := range all {
		if all[i] == w {
			all[i] = all[len(all)-1]
			r.waiters[n] = all[:len(all)-1]
			break
		}
	}
	if len(r.waiters[n]) == 0 {
		delete(r.waiters, n)
	}
}

func (r *results) run() {
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && !r.ended {
			r.ready.Wait()
		}
		all := r.queue
		r.queue = nil
		ended := r.ended
		r.mu.Unlock()
		for _, one := range all {
			r.f(one)
		}
		r.room()
		if ended && len(all) == 0 {
			return
		}
	}
}

// close tells what is left and ends.
func (r *results) close() {
	r.mu.Lock()
	r.ended = true
	r.ready.Signal()
	r.mu.Unlock()
	r.wg.Wait()
}
