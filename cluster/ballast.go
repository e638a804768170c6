package cluster

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
)

const (
	// ballastFile is in the data directory.
	ballastFile = "ballast"
	// The ballast takes one part in so many of the file system, and no more than
	// ballastBytesMax.
	ballastPart     = 100
	ballastBytesMax = 256 << 20
)

// ballast is a file that is only there to be given up. A node whose disk is full
// of what others wrote makes room by a snapshot, behind which log and files can
// go; but a snapshot has to be written first.
//
// It holds nothing, so no error of it ends the node.
type ballast struct {
	path  string
	bytes uint64 // as configured; 0: by the size of the file system
	none  bool   // there is to be none
	log   *slog.Logger
	told  bool          // that it cannot be made
	held  atomic.Uint64 // what the file takes
}

// openBallast finds what there is. It comes when the directory is locked.
func openBallast(dir string, bytes uint64, log *slog.Logger) *ballast {
	b := &ballast{path: filepath.Join(dir, ballastFile), bytes: bytes, log: log}
	if info, err := os.Stat(b.path); err == nil {
		b.held.Store(uint64(info.Size()))
	}
	return b
}

// forgo gives it up for good.
func (b *ballast) forgo(why string) {
	b.none = true
	b.giveUp(why)
}

// missing is how much of it is not there.
func (b *ballast) missing(total uint64) uint64 {
	if b == nil || b.none {
		return 0
	}
	want := b.bytes
	if want == 0 {
		want = min(ballastBytesMax, total/ballastPart)
	}
	return want - min(want, b.held.Load())
}

// make takes the room, when there is enough of it.
func (b *ballast) make(total uint64) {
	missing := b.missing(total)
	if missing == 0 {
		return
	}
	want := b.held.Load() + missing
	if err := allocate(b.path, int64(want)); err != nil {
		if !b.told {
			b.told = true
			b.log.Warn("no ballast: a full disk has nothing to give up", "path", b.path, "bytes", want, "error", err)
		}
		b.remove()
		// A file system that cannot do it will not learn it.
		b.none = errors.Is(err, errors.ErrUnsupported)
		return
	}
	b.held.Store(want)
	b.told = false
	b.log.Debug("ballast made", "path", b.path, "bytes", want)
}

// giveUp makes its room free. It is made again when there is enough.
func (b *ballast) giveUp(why string) {
	held := b.size()
	if held == 0 {
		return
	}
	if b.remove() {
		b.log.Warn("ballast given up", "path", b.path, "bytes", held, "because", why)
	}
}

func (b *ballast) remove() bool {
	if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("remove the ballast", "error", err)
		return false
	}
	b.held.Store(0)
	return true
}

// size is what it takes now.
func (b *ballast) size() uint64 {
	if b == nil {
		return 0
	}
	return b.held.Load()
}
