// Package workload has the traffic of a run: producers and consumers that write
// all they do into the history. They know nothing of the faults.
//
// Every message has an id of its own, run-producer-counter, and a body made from
// it, so that whoever gets it can tell whether it is whole. A message that is
// published again keeps its id. What the harness does not know it writes as
// unknown.
package workload
