// Package bench measures a cluster: rates, latencies, and what the processes
// of a local cluster spend on a message.
//
// A workload is run under loads. One at a time: the next publish waits for the
// answer of the one before. Full speed: a bounded number is under way all the
// time. Paced (open loop): messages are due at fixed times, whether or not the
// cluster keeps up, and a latency counts from the moment a message was due, so
// that a stall is not measured once but for every message it held up.
//
// Bodies are random bytes from a seed, so that nothing on the way can compress
// them. A run checks what it measures: each message must be confirmed, and
// received exactly once.
package bench
