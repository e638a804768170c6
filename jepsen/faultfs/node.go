package faultfs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or a directory of one mount. The library's loopback does what
// changes nothing.
type node struct {
	fs.LoopbackNode
	m *mount
}

func (n *node) below() string { return n.Path(n.Root()) }

func (n *node) path() string { return filepath.Join(n.RootData.Path, n.below()) }

func inodeOf(path string) (uint64, error) {
	var st syscall.Stat_t
	err := syscall.Lstat(path, &st)
	return st.Ino, err
}

// do runs f unless the power is off or a rule makes the operation fail.
func (m *mount) do(ctx context.Context, op Op, name string, f func() syscall.Errno) syscall.Errno {
	if errno := m.fs.rules.apply(op, name, func() bool { return killed(ctx) }); errno != 0 {
		return errno
	}
	if l, cut := m.fs.steps.due(op, name); cut {
		if err := m.fs.Cut(l); err != nil {
			return errno(err)
		}
	}
	m.power.RLock()
	defer m.power.RUnlock()
	if m.off {
		return syscall.EIO
	}
	return f()
}

// killed says whether the thread that asked is gone or about to be: bit 8 of the
// pending signals is SIGKILL.
func killed(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", caller.Pid))
	if err != nil {
		return true
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 2 && (f[0] == "SigPnd:" || f[0] == "ShdPnd:") {
			var set uint64
			if _, err := fmt.Sscanf(f[1], "%x", &set); err == nil && set&(1<<8) != 0 {
				return true
			}
		}
	}
	return false
}

// The lookups are kept apart from changes, which move names aside for a moment.

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.m.fs.names.mu.RLock()
	defer n.m.fs.names.mu.RUnlock()
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.m.fs.names.mu.RLock()
	defer n.m.fs.names.mu.RUnlock()
	return n.LoopbackNode.Getattr(ctx, f, out)
}

func (n *node) named(ctx context.Context, op Op, name string, make func() (*fs.Inode, syscall.Errno)) (made *fs.Inode, errno syscall.Errno) {
	errno = n.m.do(ctx, op, filepath.Join(n.below(), name), func() syscall.Errno {
		dir := n.path()
		return n.m.fs.names.make(dir, name, func() syscall.Errno {
			made, errno = make()
			return errno
		})
	})
	return made, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.named(ctx, OpCreate, name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mkdir(ctx, name, mode, out) })
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.named(ctx, OpCreate, name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Symlink(ctx, target, name, out) })
}

func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.named(ctx, OpCreate, name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mknod(ctx, name, mode, dev, out) })
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.named(ctx, OpCreate, name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Link(ctx, target, name, out) })
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	var h fs.FileHandle
	made, errno := n.named(ctx, OpCreate, name, func() (*fs.Inode, syscall.Errno) {
		path := filepath.Join(n.path(), name)
		_, err := os.Lstat(path)
		fresh := err != nil
		if !fresh && flags&syscall.O_TRUNC != 0 {
			if errno := n.m.fs.truncate(path, 0); errno != 0 {
				return nil, errno
			}
			flags &^= syscall.O_TRUNC
		}
		ino, lf, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
		if errno != 0 {
			return nil, errno
		}
		if fresh {
			n.m.fs.contents.forget(out.Ino)
		}
		h, errno = n.m.wrap(lf, ino)
		return ino, errno
	})
	return made, h, 0, errno
}

// Tmpfile is not supported: a file without a name is durable in no way.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP
}

// CopyFileRange is not supported, so that all that is written comes through Write.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	var h fs.FileHandle
	errno := n.m.do(ctx, OpOpen, n.below(), func() syscall.Errno {
		n.m.fs.names.mu.RLock()
		defer n.m.fs.names.mu.RUnlock()
		if flags&syscall.O_TRUNC != 0 {
			if errno := n.m.fs.truncate(n.path(), 0); errno != 0 {
				return errno
			}
			flags &^= syscall.O_TRUNC
		}
		lf, _, errno := n.LoopbackNode.Open(ctx, flags)
		if errno == 0 {
			h, errno = n.m.wrap(lf, n.EmbeddedInode())
		}
		return errno
	})
	// What the kernel has of the file is right: nobody else changes it.
	return h, fuse.FOPEN_KEEP_CACHE, errno
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.m.do(ctx, OpRemove, filepath.Join(n.below(), name), func() syscall.Errno {
		return n.m.fs.names.remove(n.path(), name, false)
	})
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.m.do(ctx, OpRemove, filepath.Join(n.below(), name), func() syscall.Errno {
		return n.m.fs.names.remove(n.path(), name, true)
	})
}

func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok || flags&^unix.RENAME_NOREPLACE != 0 {
		return syscall.EINVAL
	}
	return n.m.do(ctx, OpRename, filepath.Join(to.below(), newName), func() syscall.Errno {
		return n.m.fs.names.move(n.path(), name, to.path(), newName, flags&unix.RENAME_NOREPLACE != 0)
	})
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, ok := in.GetSize()
	if !ok {
		n.m.fs.names.mu.RLock()
		defer n.m.fs.names.mu.RUnlock()
		return n.LoopbackNode.Setattr(ctx, f, in, out)
	}
	return n.m.do(ctx, OpTruncate, n.below(), func() syscall.Errno {
		n.m.fs.names.mu.RLock()
		defer n.m.fs.names.mu.RUnlock()
		change := func() syscall.Errno { return n.LoopbackNode.Setattr(ctx, f, in, out) }
		if h, ok := f.(*file); ok {
			return h.content.truncate(h.fd, int64(size), change)
		}
		return n.m.fs.changeLength(n.path(), int64(size), change)
	})
}

// OpendirHandle returns a directory whose fsync makes its names durable.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.m.fs.names.mu.RLock()
	defer n.m.fs.names.mu.RUnlock()
	s, errno := fs.NewLoopbackDirStream(n.path())
	if errno != 0 {
		return nil, 0, errno
	}
	return &folder{node: n, stream: s}, 0, 0
}

// folder is an open directory.
type folder struct {
	node   *node
	stream fs.DirStream
}

func (d *folder) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	return d.stream.(fs.FileReaddirenter).Readdirent(ctx)
}

func (d *folder) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	return d.stream.(fs.FileSeekdirer).Seekdir(ctx, off)
}

func (d *folder) Releasedir(context.Context, uint32) { d.stream.Close() }

func (d *folder) Fsyncdir(ctx context.Context, _ uint32) syscall.Errno {
	n := d.node
	return n.m.do(ctx, OpFsync, n.below(), func() syscall.Errno { return errno(n.m.fs.names.sync(n.path())) })
}
