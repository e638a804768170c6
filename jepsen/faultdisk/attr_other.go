//go:build !linux

package faultdisk

import "syscall"

func ownGroup() *syscall.SysProcAttr { return nil }
