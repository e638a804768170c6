//go:build unix && !linux

package proc

import "syscall"

// childAttr gives a child a process group of its own. That it ends with us is up
// to its standard input here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
