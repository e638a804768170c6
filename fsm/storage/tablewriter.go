package storage

import (
	"errors"
	"syscall"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// tableWriteBytes are written at once. Pebble's own writer has a buffer of 4 KiB,
	// of which its blocks are no multiple: three writes for a block, two of them of
	// parts of pages, cost a fifth of a table.
	tableWriteBytes = 512 << 10
	// tableSyncBytes is Pebble's own default, for the tables that it writes.
	tableSyncBytes = 512 << 10
	// directAlign is what O_DIRECT asks of memory, offset and length: the sector of
	// any disk, and a page.
	directAlign = 4 << 10
)

// tableWriter writes a table's file in pieces of tableWriteBytes, where the file
// system lets it past the page cache (O_DIRECT): nobody reads the table soon,
// since its bodies are in memory, and to copy it into pages that have been in no
// cache of the processor for long, or that a virtual machine has given back to its
// host, was a tenth of what a node did that was published to at full speed.
type tableWriter struct {
	f      vfs.File
	buf    []byte // of tableBuffer
	sync   func() error
	direct bool
	pace   Pace  // may be nil
	err    error // the first; Pebble goes on to write, and keeps the last that it is told
}

// tableBuffer returns memory for a tableWriter.
func tableBuffer() []byte {
	b := make([]byte, tableWriteBytes+directAlign)
	from := -int(uintptr(unsafe.Pointer(&b[0]))) & (directAlign - 1)
	return b[from : from : from+tableWriteBytes]
}

// newTableWriter takes over a new, empty file.
func newTableWriter(f vfs.File, buf []byte, pace Pace) *tableWriter {
	if setDirect(f, true) {
		return &tableWriter{f: f, buf: buf, sync: f.SyncData, direct: true, pace: pace}
	}
	w := &tableWriter{f: f, buf: buf, pace: pace}
	w.buffered()
	return w
}

// buffered has the file written through the page cache, and written back as it grows:
// else the sync at its end would have the log wait.
func (w *tableWriter) buffered() {
	w.f = vfs.NewSyncingFile(w.f, vfs.SyncingFileOptions{BytesPerSync: tableSyncBytes})
	w.sync = w.f.Sync
}

func (w *tableWriter) Write(p []byte) error {
	for len(p) > 0 && w.err == nil {
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if len(w.buf) < cap(w.buf) {
			return nil
		}
		began := time.Now()
		w.err = w.flush()
		if w.pace != nil && w.err == nil {
			w.pace(time.Since(began))
		}
	}
	return w.err
}

// flush writes what is buffered.
func (w *tableWriter) flush() error {
	b := w.buf
	w.buf = w.buf[:0]
	if w.direct {
		whole := len(b) &^ (directAlign - 1)
		n, err := w.f.Write(b[:whole])
		// There are file systems that refuse it only here.
		if err != nil && (n != 0 || !errors.Is(err, syscall.EINVAL)) {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		// The end of the file is no whole sector.
		if w.direct = false; !setDirect(w.f, false) {
			return errors.New("a file that was opened for direct writes does not take others")
		}
		if err != nil {
			w.buffered()
		}
	}
	_, err := w.f.Write(b)
	return err
}

// Finish makes the table durable.
func (w *tableWriter) Finish() error {
	if w.err == nil {
		w.err = w.flush()
	}
	if w.err == nil {
		w.err = w.sync()
	}
	return errors.Join(w.err, w.f.Close())
}

// Abort leaves a part of a table. Nothing is told of it.
func (w *tableWriter) Abort() { _ = w.f.Close() }
