//go:build race

package sim

import "runtime"

// One goroutine of a bubble runs at a time. In Go 1.26 all timers of a bubble have one
// context of the race detector (runtime/time.go, unlockAndRun, bubble.timers.raceCtx),
// and nothing keeps two goroutines of it that look at two timer channels at once
// (maybeRunChan) from using it together: the detector then ends the process with
// "SIGSEGV: segmentation violation" in raceacquirectx. What it finds does not depend on
// how many run at once.
func init() { runtime.GOMAXPROCS(1) }
