package faultdisk

import "syscall"

// ownGroup keeps an interrupt from the terminal away from the disk: it ends after
// who uses it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
