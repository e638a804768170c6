// Package skew moves the wall clock of one process.
//
// Time namespaces do not cover the wall clock, libfaketime does not reach Go
// programs, which ask the vDSO without a library in between, and setting the
// system's clock would move every other process too. So the process's own copy of
// the vDSO is changed: its clock_gettime becomes a jump to a few instructions in
// the padding behind it, which ask the kernel and add an offset to the wall clock.
// The monotonic clock stays as it is. The product has no part in it, and any
// binary can be tested.
//
// The change lasts as long as the process. It is written through /proc/PID/mem,
// while the process stands still.
package skew
