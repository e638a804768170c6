package hosts

import (
	"container/heap"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	// lateMax bounds the packets that are held because they are late; what comes
	// on top is lost, as in a full buffer.
	lateMax = 1 << 15
	// mtu is that of every device. Large packets spare this process work.
	mtu = 9000
)

// port is where a host hangs on the switch.
type port struct {
	address netip.Addr
	device  io.ReadWriteCloser
}

// fabric carries packets between ports. Port 0 is the harness.
type fabric struct {
	ports []port
	index map[netip.Addr]int

	mu     sync.Mutex // guards what follows
	rules  map[[2]int]Rule
	counts map[[2]int]Count
	late   lateHeap
	closed bool

	wake    chan struct{} // cap 1: the first late packet is another, or closed
	running sync.WaitGroup
}

// parcel is a packet that is late.
type parcel struct {
	due    time.Time
	to     int
	packet []byte
}

type lateHeap []parcel

func (h lateHeap) Len() int           { return len(h) }
func (h lateHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h lateHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lateHeap) Push(x any)        { *h = append(*h, x.(parcel)) }
func (h *lateHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = parcel{}
	*h = old[:len(old)-1]
	return p
}

func newFabric(ports []port) *fabric {
	f := &fabric{ports: ports, index: map[netip.Addr]int{}, rules: map[[2]int]Rule{}, counts: map[[2]int]Count{}, wake: make(chan struct{}, 1)}
	for i, p := range ports {
		f.index[p.address] = i
	}
	for i := range ports {
		f.running.Go(func() { f.read(i) })
	}
	f.running.Go(f.deliver)
	return f
}

// read takes the packets that a host sends.
func (f *fabric) read(from int) {
	buf := make([]byte, 1<<16)
	for {
		n, err := f.ports[from].device.Read(buf)
		if err != nil {
			return // closed
		}
		_, to, ok := addresses(buf[:n])
		i, known := f.index[to]
		if ok && known && i != from {
			f.carry(from, i, buf[:n])
		}
	}
}

// carry lets a packet go over a link.
func (f *fabric) carry(from, to int, packet []byte) {
	f.mu.Lock()
	r, link := f.rules[[2]int{from, to}], [2]int{from, to}
	c := f.counts[link]
	if r.Cut || r.Loss > 0 && rand.IntN(1000) < r.Loss {
		c.Lost++
		f.counts[link] = c
		f.mu.Unlock()
		return
	}
	c.Passed++
	if r.Corrupt > 0 && rand.IntN(1000) < r.Corrupt && corrupt(packet, rand.Uint64()) {
		c.Changed++
	}
	copies := 1
	if r.Duplicate > 0 && rand.IntN(1000) < r.Duplicate {
		copies = 2
		c.Repeated++
	}
	delayed := r.Delay > 0 || r.Jitter > 0
	if delayed {
		c.Late++
		for range copies {
			f.hold(r, to, packet)
		}
	}
	f.counts[link] = c
	f.mu.Unlock()
	if !delayed {
		for range copies {
			_, _ = f.ports[to].device.Write(packet) // a device that takes nothing has lost it
		}
	}
}

// hold keeps a packet until it is due. Called with mu held.
func (f *fabric) hold(r Rule, to int, packet []byte) {
	if len(f.late) >= lateMax || f.closed {
		return
	}
	due := time.Now().Add(r.Delay)
	if r.Jitter > 0 {
		due = due.Add(rand.N(r.Jitter))
	}
	heap.Push(&f.late, parcel{due, to, append([]byte(nil), packet...)})
	if f.late[0].due.Equal(due) {
		f.poke()
	}
}

func (f *fabric) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// deliver hands over what was late.
func (f *fabric) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due []parcel
		f.mu.Lock()
		now, next := time.Now(), time.Hour
		for len(f.late) > 0 {
			if wait := f.late[0].due.Sub(now); wait > 0 {
				next = wait
				break
			}
			due = append(due, heap.Pop(&f.late).(parcel))
		}
		closed := f.closed
		f.mu.Unlock()
		if closed {
			return
		}
		for _, p := range due {
			_, _ = f.ports[p.to].device.Write(p.packet)
		}
		if len(due) > 0 {
			continue
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-f.wake:
		}
	}
}

func (f *fabric) set(from, to int, r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules[[2]int{from, to}] = r
}

func (f *fabric) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.rules)
	clear(f.counts)
}

func (f *fabric) count(from, to int) Count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[[2]int{from, to}]
}

// close ends everything and waits for it. What is late is lost.
func (f *fabric) close() {
	f.mu.Lock()
	f.closed = true
	f.late = nil
	f.mu.Unlock()
	f.poke()
	for _, p := range f.ports {
		_ = p.device.Close()
	}
	f.running.Wait()
}
