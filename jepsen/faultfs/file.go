package faultfs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// file is an open file.
type file struct {
	*fs.LoopbackFile
	m       *mount
	inode   *fs.Inode
	content *content
	fd      int
}

// wrap takes over what the loopback has opened.
func (m *mount) wrap(h fs.FileHandle, inode *fs.Inode) (fs.FileHandle, syscall.Errno) {
	lf := h.(*fs.LoopbackFile)
	fd, ok := lf.PassthroughFd()
	if !ok {
		return nil, syscall.EBADF
	}
	return &file{LoopbackFile: lf, m: m, inode: inode, content: m.fs.contents.get(inode.StableAttr().Ino), fd: fd}, 0
}

// PassthroughFd hides the descriptor: the kernel would read and write behind our
// back.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

func (f *file) name() string { return f.inode.Path(f.inode.Root()) }

func (f *file) Read(ctx context.Context, b []byte, off int64) (res fuse.ReadResult, errno syscall.Errno) {
	errno = f.m.do(ctx, OpRead, f.name(), func() syscall.Errno {
		n, err := syscall.Pread(f.fd, b, off)
		if err != nil {
			return fs.ToErrno(err)
		}
		res = fuse.ReadResultData(b[:n])
		return 0
	})
	return res, errno
}

func (f *file) Write(ctx context.Context, b []byte, off int64) (written uint32, errno syscall.Errno) {
	errno = f.m.do(ctx, OpWrite, f.name(), func() syscall.Errno {
		n, err := f.content.write(f.fd, b, off)
		written = uint32(max(n, 0))
		return fs.ToErrno(err)
	})
	return written, errno
}

// Allocate reserves space; holes cannot be punched.
func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1
	if mode&^keepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	return f.m.do(ctx, OpWrite, f.name(), func() syscall.Errno {
		return f.content.grow(f.fd, func() syscall.Errno { return f.LoopbackFile.Allocate(ctx, off, size, mode) })
	})
}

// Fsync makes the content durable. The backing file is not fsynced: the machine
// that this runs on does not fail.
func (f *file) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	failed := true
	errno := f.m.do(ctx, OpFsync, f.name(), func() syscall.Errno {
		failed = false
		return fs.ToErrno(f.content.sync())
	})
	if failed {
		f.content.doom()
	}
	return errno
}

// Ioctl is not passed on.
func (f *file) Ioctl(context.Context, uint32, uint64, []byte, []byte) (int32, syscall.Errno) {
	return 0, syscall.ENOTTY
}
