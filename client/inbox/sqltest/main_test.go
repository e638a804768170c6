package sqltest

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

// server is the PostgreSQL that all tests share, each with a database of its own.
var server *postgres

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	// The server is to end with the thread that has started it, if this process
	// should be killed.
	runtime.LockOSThread()
	var err error
	if server, err = startPostgres(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need PostgreSQL (Debian: apt-get install postgresql):", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
