// Package proc runs a cluster of real onceq processes, on loopback or each in a
// network namespace of its own: it builds the binary, starts the nodes, and kills,
// pauses and restarts them. Nodes end when the process that started them ends,
// however it does.
package proc
