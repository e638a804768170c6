// Package history is what a run leaves behind for its checkers: every operation
// that the harness asked for, what came of it, what was done to the cluster
// meanwhile, and what the nodes said of themselves. One JSON object a line.
//
// An operation is written when it is asked for (invoke) and again when its
// outcome is known: ok, fail (proved to have had no effect), or info (it may
// have had its effect, then or later). An operation whose second line is
// missing counts as info. Times are nanoseconds since the start of the run by
// the harness's monotonic clock, so they compare across all processes of the
// harness and with nothing else.
//
// The first line is the setup. Checkers take everything they need to know from
// the history itself, so a file can be judged again long after its run.
package history
