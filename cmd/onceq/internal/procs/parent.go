package procs

import (
	"io"
	"os"
)

// EndWithParent calls end once the parent of this process is gone, which shows
// as the end of standard input. The goroutine lasts as long as the process,
// since a read of a pipe cannot be called off.
func EndWithParent(end func()) {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		end()
	}()
}
