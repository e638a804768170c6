// Package jepsen tests onceq from outside: it starts a cluster of real processes,
// lets a workload run against it through the client library, breaks things
// meanwhile, and judges what was seen.
//
//	history   what happened, as lines
//	check     judges a history; pure functions
//	workload  producers and consumers
//	nemesis   faults
//	proc      processes, on loopback or each on a host of its own
//	hosts     network namespaces and the switch between them
//	skew      a process's wall clock
//	proxy     what stands between clients and nodes
//	faultdisk disks that lose, tear, fail, slow down and hang; their process is the
//	          module faultfs
//	raw       frames without the client library
//	report    a run for people
//	mutants   broken builds that must be caught
//
// # A run
//
// Build, start the nodes, wait for a leader, create the queues; start the
// traffic, the monitor and the nemesis. When the time is over: end the nemesis,
// which heals everything, stop the producers, and let the consumers empty the
// queues; then read the counts, compare the digests, wait until the nodes have given
// back what they kept of it, and judge.
//
// # What a verdict means
//
// Invalid is a promise that was seen broken. Valid needs more than that nothing
// was seen: the run must have been drained, enough must have happened, and each
// planned fault must have had an effect that was observed; otherwise it is
// unknown.
//
// # Trade-offs
//
// All processes of the harness share one clock, so that times compare; the price
// is that the harness competes with the nodes for the same processors. It watches
// itself, and what it sees late excuses the cluster (see check). The seed decides
// what is tried when, and not what comes of it: a run is repeated by its seed
// only in its plan.
package jepsen
