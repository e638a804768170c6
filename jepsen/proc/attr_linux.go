package proc

import "syscall"

// childAttr gives a child a process group of its own, so that an interrupt from
// the terminal reaches the harness alone, and makes the kernel kill it with us.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
