package main

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// useHugePages has the first bytes of the heap come in pages of 2 MiB, where the
// system leaves the choice to the process (transparent_hugepage=madvise, the
// default of most). What is published is in memory that nobody has touched before,
// until the garbage collector gives some back; a page fault for each 4 KiB of it
// was a quarter of what a message cost.
//
// Go has no call for this: it did so for every program once, and stopped since a
// fault can take long where memory is in small pieces (golang.org/issue/61718). Its
// heap takes addresses from the lowest that is free, and keeps a mapping for ever; so
// this maps as much at once, asks for large pages there, and gives it back, untouched.
//
// The system may refuse a mapping that is larger than its memory, as it may what a
// message needs later. Go ends the process over that, so it is asked first.
func useHugePages(bytes int64) error {
	b, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Munmap(b)
	}
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", bytes, err)
	}
	heap := make([]byte, bytes)
	err = unix.Madvise(heap, unix.MADV_HUGEPAGE)
	if errors.Is(err, unix.EINVAL) {
		err = errors.New("this kernel has none")
	}
	heap = nil
	debug.FreeOSMemory()
	return err
}
