// Package proc runs a cluster of real onceq processes on loopback: it builds the
// binary, starts the nodes, and kills, pauses and restarts them. Nodes end when
// the process that started them ends, however it does.
package proc
