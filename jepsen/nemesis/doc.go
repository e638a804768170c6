// Package nemesis breaks a cluster and heals it again. Each fault is one function
// that breaks something, waits, and puts it back; it says whether its effect was
// observed, since a fault that did nothing proves nothing. Which fault comes
// when is drawn from the seed of the run.
package nemesis
