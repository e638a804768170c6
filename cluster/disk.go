package cluster

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// diskLevel says how much room a node has left. The values travel in gossip and
// are only ever appended to.
type diskLevel uint8

const (
	// diskOK: everything is accepted.
	diskOK diskLevel = iota
	// diskLow: publishes are refused.
	diskLow
	// diskFull: everything is refused that does not make room.
	diskFull
)

func (l diskLevel) String() string {
	switch l {
	case diskOK:
		return "ok"
	case diskLow:
		return "low"
	case diskFull:
		return "full"
	}
	return fmt.Sprintf("disk level %d", uint8(l))
}

const (
	// diskLookEvery is how often the free space is looked at. What publishes can
	// write within that time has to fit into what is reserved.
	diskLookEvery = time.Second
	// diskReservePercent of the file system is reserved unless the operator says
	// otherwise.
	diskReservePercent = 10
	// diskSegments of the log are reserved in any case: raft-wal makes a segment
	// ahead, and the log goes on while a snapshot is written that will shorten it.
	diskSegments = 4
	// diskSnapshots: a new snapshot is written before the oldest one goes.
	diskSnapshots = 2
	// diskClearLooks: each so many looks at a full disk a snapshot is taken, and each
	// diskLowClearLooks at one that is nearly full.
	diskClearLooks, diskLowClearLooks = 10, 30
	// diskLowSeldom: in the end it is one in so many of diskLowClearLooks, ten minutes.
	diskLowSeldom = 20
)

// disk watches how much room this node and the other voters have. A disk that is
// full ends the process, and at worst all nodes at once, so publishes are refused
// while there is still room for the acks that make some.
type disk struct {
	space   func() (free, total uint64, err error)
	need    func() uint64         // bytes that are reserved in any case
	reserve uint64                // 0: diskReservePercent of the file system
	others  func() diskLevel      // the worst of the other voters
	tell    func(diskLevel) error // the other nodes
	// writes is what the next snapshot writes before anything is freed behind it, and
	// clear has one taken.
	writes func() uint64
	clear  func()
	// stir has an entry made if this node leads: a snapshot is taken only of something new.
	stir    func()
	ballast *ballast // nil: none
	looks   int      // at a disk of this level
	stirs   int      // looks while publishes are refused
	log     *slog.Logger

	own         atomic.Uint32 // diskLevel of this node
	worst       atomic.Uint32 // diskLevel of the worst voter
	free, total atomic.Uint64
}

// look measures, tells the others of a change, and takes in what they told.
func (d *disk) look() error {
	free, total, err := d.space()
	if err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	d.free.Store(free)
	d.total.Store(total)
	before := diskLevel(d.own.Load())
	low := d.low(total)
	// The ballast counts as there: what it leaves is for a snapshot, and is not for
	// those who are refused.
	now := judgeDisk(before, free-min(free, d.ballast.missing(total)), low)
	if now != before {
		d.log.Warn("free disk space", "level", now, "free", free, "publishes_refused_below", low)
		d.own.Store(uint32(now))
		if err := d.tell(now); err != nil {
			d.log.Debug("tell the other nodes of the disk", "error", err)
		}
	}
	worst := max(now, d.others())
	d.worst.Store(uint32(worst))
	if now != before {
		d.looks = 0
	}
	d.makeRoom(now, free, total)
	if worst == diskOK {
		d.stirs = 0
		return nil
	}
	if dueAt(d.stirs, diskLowClearLooks) {
		d.stir()
	}
	d.stirs++
	return nil
}

// makeRoom has a snapshot taken again and again while publishes are refused: acks, and
// what was purged, make room only behind one, and files that two snapshots share only
// behind the next. Nothing else would have one taken, since the log hardly grows then.
func (d *disk) makeRoom(now diskLevel, free, total uint64) {
	switch now {
	case diskOK:
		d.ballast.make(total)
		d.looks = 0
		return
	case diskLow:
		if dueAt(d.looks, diskLowClearLooks) {
			d.clear()
		}
	case diskFull:
		if free < d.need()/2+d.writes() {
			d.ballast.giveUp("the disk is full, and a snapshot needs room")
		}
		if d.looks%diskClearLooks == 0 {
			d.clear()
		}
	}
	d.looks++
}

// dueAt spreads what is done while a disk stays nearly full: three times at first, which
// frees what was purged before, then ever more seldom, since the room may be somebody
// else's.
func dueAt(look, every int) bool {
	n := look / every
	return look%every == 0 && (n < 3 || n&(n-1) == 0 || n%diskLowSeldom == 0)
}

// low is the free space below which publishes are refused.
func (d *disk) low(total uint64) uint64 {
	reserve := d.reserve
	if reserve == 0 {
		reserve = total / 100 * diskReservePercent
	}
	return max(reserve, d.need())
}

// judgeDisk goes back only a tenth above the threshold, so that a node at the
// edge does not change its mind with each message.
func judgeDisk(before diskLevel, free, low uint64) diskLevel {
	back := func(l diskLevel, threshold uint64) uint64 {
		if before >= l {
			return threshold + threshold/10
		}
		return threshold
	}
	switch {
	case free < back(diskFull, low/2):
		return diskFull
	case free < back(diskLow, low):
		return diskLow
	}
	return diskOK
}

// run looks until end. The first look was made before clients were served.
func (d *disk) run(end <-chan struct{}, fatal func(error)) {
	tick := time.NewTicker(diskLookEvery)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		if err := d.look(); err != nil {
			fatal(err)
			return
		}
	}
}

// refuses says why a command is not taken now, nil if it is. What makes room, or
// is on the way to it (a consumer that attaches will ack), is always taken.
func (d *disk) refuses(op wire.Op, payload []byte) *wire.ErrorReply {
	if d == nil {
		return nil
	}
	level := diskLevel(d.worst.Load())
	switch op {
	case wire.OpSettle, wire.OpAttach, wire.OpLeave, wire.OpReceive, wire.OpRelease, wire.OpCloseSession, wire.OpQueuePurge, wire.OpQueueDelete, wire.OpEdit:
		return nil
	case wire.OpPublish, wire.OpAckPublish, wire.OpRestoreBegin, wire.OpRestoreChunk:
		if level < diskLow || level < diskFull && op == wire.OpPublish && carriesNothing(payload) {
			return nil
		}
	default:
		if level < diskFull {
			return nil
		}
	}
	whose := "the disk of another node"
	if diskLevel(d.own.Load()) == level {
		whose = fmt.Sprintf("this node's disk, with %d MiB of %d MiB free,", d.free.Load()>>20, d.total.Load()>>20)
	}
	return &wire.ErrorReply{Code: wire.CodeDiskFull, Retriable: true,
		Text: whose + " is almost full: nothing was stored; acks are taken and make room, and so do queue purge and a larger disk"}
}

// carriesNothing says that a publish frame has only its head: it tells a floor, as a
// client must when many publishes were refused before they came to the log, or neither
// its seals nor who opens its session after it could be judged.
func carriesNothing(frame []byte) bool {
	r := pack.NewReader(frame)
	r.Array(7)
	for range 5 { // incarnation, group, session, epoch, floor
		r.Uint()
	}
	r.StrBytes(wire.QueueNameBytesMax)
	return r.Array(fsm.PublishesPerFrameMax) == 0 && r.Err() == nil
}

// diskSpace asks the file system of a directory. Reserved blocks do not count as
// free.
func diskSpace(dir string) func() (free, total uint64, err error) {
	return func() (uint64, uint64, error) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return 0, 0, err
		}
		block := uint64(s.Bsize)
		return uint64(s.Bavail) * block, uint64(s.Blocks) * block, nil
	}
}

// newDisk watches the data directory.
func newDisk(n *Node, g *group) *disk {
	return &disk{
		space: diskSpace(n.cfg.DataDir),
		need: func() uint64 {
			return diskSegments*raftlog.SegmentBytesDefault + diskSnapshots*uint64(n.store.SnapshotBytes())
		},
		reserve: n.cfg.DiskReserve,
		others:  g.worstDisk,
		writes: func() uint64 {
			bytes := uint64(n.store.SnapshotBytes())
			if s, ok := g.bodies.(*storage.Pebble); ok {
				bytes += uint64(s.Stats().Bytes)
			}
			return bytes
		},
		clear:   g.snaps.ask,
		stir:    func() { g.proposer.requestTick() },
		ballast: n.ballast,
		tell: func(l diskLevel) error {
			if gossip := n.gossip.Load(); gossip != nil {
				return gossip.SetDisk(uint8(l))
			}
			return nil
		},
		log: n.log,
	}
}

// worstDisk is the level of the worst among the other voters that are alive.
func (g *group) worstDisk() diskLevel {
	voters := make(map[raft.ServerID]bool)
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		voters[s.ID] = s.Suffrage == raft.Voter
	}
	worst := diskOK
	for _, v := range g.topology.nodes() {
		if v.Alive && voters[v.ServerID] && v.ServerID != g.id {
			worst = max(worst, min(diskLevel(v.Disk), diskFull))
		}
	}
	return worst
}
