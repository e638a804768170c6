package client

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// AtEnd are run when all tests are over, before goroutines are counted.
var AtEnd []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range AtEnd {
		f()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
