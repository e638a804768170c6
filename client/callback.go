package client

import (
	"runtime"
	"strings"
)

// callbacks are the functions that call the program's: whoever waits for one of
// them to return must not be called by what it calls.
var callbacks = []string{"(*consumer).call", "(*consumer).hand", "(*hooks).run"}

// framesMax is how far up the stack is looked.
const framesMax = 1024

// inCallback says that the caller's caller runs inside a function of the program
// that this package has called.
func inCallback() bool {
	pcs := make([]uintptr, framesMax)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if name, ours := strings.CutPrefix(f.Function, packagePath); ours {
			for _, c := range callbacks {
				// Also the functions inside it, "(*hooks).run.func1".
				if name == c || strings.HasPrefix(name, c+".") {
					return true
				}
			}
		}
		if !more {
			return false
		}
	}
}

// packagePath is how frames of this package begin.
const packagePath = "onceq/client."
