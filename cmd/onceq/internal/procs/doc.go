// Package procs starts child processes that end when this process ends,
// however it ends.
//
// Two means, since each alone has a hole. The kernel kills a child when the
// thread that started it ends (PR_SET_PDEATHSIG): this reaches a child that is
// stopped, but exists on Linux only and is set after the fork, so a parent that
// dies in between is missed. And each child's standard input is a pipe whose
// other end only this process holds: a child that reads it sees the end of the
// file, on every system, but not while it is stopped.
//
// A Group owns one goroutine, locked to one thread, that starts every child:
// the thread must live as long as the children, or the kernel would take its
// end for the end of the parent.
package procs
