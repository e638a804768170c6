// Package devcluster runs a cluster of child processes on this machine, each
// of them `onceq server`: real processes, so that a kill -9 is a real one.
//
// The processes are authoritative about queues and leaders; this package knows
// only which process runs. Each node is running, paused, killed (SIGKILL),
// stopped (SIGTERM, handed over) or ended (by itself, which is reported).
// Nothing is started again unless somebody asks.
package devcluster
