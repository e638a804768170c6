// Package proctest makes programs that stand in for onceq where a test is about
// processes and not about what they do.
package proctest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Program writes a shell script into a directory of the test's own and returns its
// path, ready to be executed.
func Program(t testing.TB, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	// A process that another test starts meanwhile would inherit the descriptor
	// that is open for writing, and executing the file would fail with "text file
	// busy" (golang/go#22315).
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
