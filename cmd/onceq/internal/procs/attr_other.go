//go:build unix && !linux

package procs

import "syscall"

// childAttr gives the child a process group of its own, so that an interrupt
// from the terminal reaches the parent alone. The pipe has to do for the rest.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
