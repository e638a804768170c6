// Package raftlogtest has a disk that is slow, and loses what it is writing when its node's power is cut.
package raftlogtest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Power is what a node runs on for one life: without it nothing that the node does is seen by anybody, or reaches its disk. The zero
// value is on.
type Power struct {
	mu  sync.Mutex // guards cut
	cut bool
}

// With does what has an effect outside the node, whole or, without power, not at all.
func (p *Power) With(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		do()
	}
}

// Cut ends it. What is being done by With is done before Cut returns.
func (p *Power) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// Disk is the log and the stable store of a node for one life, over a store that outlives it.
type Disk struct {
	*raft.InmemStore
	power *Power
	delay atomic.Int64
}

// NewDisk returns a disk that takes no time.
func NewDisk(lasting *raft.InmemStore, power *Power) *Disk {
	return &Disk{InmemStore: lasting, power: power}
}

// SetDelay says how long an append takes from now on.
func (d *Disk) SetDelay(delay time.Duration) { d.delay.Store(int64(delay)) }

// StoreLogs is what a power cut loses as long as it has not returned. Without power there is no error: nobody hears of it, and raft
// panics over some.
func (d *Disk) StoreLogs(logs []*raft.Log) (err error) {
	if delay := d.delay.Load(); delay > 0 {
		time.Sleep(time.Duration(delay))
	}
	d.power.With(func() { err = d.InmemStore.StoreLogs(logs) })
	return err
}

// DeleteRange is done at once.
func (d *Disk) DeleteRange(from, to uint64) (err error) {
	d.power.With(func() { err = d.InmemStore.DeleteRange(from, to) })
	return err
}

// Set is done at once: what is slow is the log.
func (d *Disk) Set(key, value []byte) (err error) {
	d.power.With(func() { err = d.InmemStore.Set(key, value) })
	return err
}
