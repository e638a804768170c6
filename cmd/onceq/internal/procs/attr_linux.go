package procs

import "syscall"

// childAttr makes the kernel kill the child with the thread that started it,
// and gives it a process group of its own, so that an interrupt from the
// terminal reaches the parent alone, which ends its children in order.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
