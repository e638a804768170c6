package proc

import (
	"debug/buildinfo"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"onceq/jepsen/history"
)

// Sizes is what a node takes now. Files come and go meanwhile; one that is gone counts
// as nothing, and an error of the disk is one of the whole.
func (c *Cluster) Sizes(name string) (history.Bytes, error) {
	b, err := diskSizes(c.DataDir(name))
	if err != nil {
		return b, err
	}
	if pid := c.Pid(name); pid != 0 {
		// That there is nobody to ask is what 0 says.
		b.Resident, b.Peak, _ = Resident(pid)
	}
	return b, nil
}

// diskSizes sums what is below a data directory, by kind. A table that live bodies and
// snapshots share has several names and is there once.
func diskSizes(dir string) (b history.Bytes, err error) {
	type file struct {
		inode, bytes uint64
		kind         int
	}
	sums := [...]*uint64{kindLog: &b.Log, kindBodies: &b.Bodies, kindSnapshots: &b.Snapshots, kindBallast: &b.Ballast, kindRest: &b.Rest}
	var all []file
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if parts := below(dir, path); len(parts) == 4 && kindOf(parts) == kindSnapshots {
				b.Kept++
			}
			return nil
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		f := file{bytes: uint64(info.Size()), kind: kindOf(below(dir, path))}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.inode = st.Ino
		}
		all = append(all, f)
		return nil
	})
	slices.SortStableFunc(all, func(a, b file) int { return a.kind - b.kind })
	seen := map[uint64]bool{}
	for _, f := range all {
		if f.inode == 0 || !seen[f.inode] {
			seen[f.inode] = true
			*sums[f.kind] += f.bytes
		}
	}
	return b, err
}

// The kinds of files, in the order in which they claim a file with several names.
const (
	kindLog = iota
	kindBodies
	kindSnapshots
	kindBallast
	kindRest
)

// below is the way from a directory to a file in it.
func below(dir, path string) []string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return nil // not reached: it was found there
	}
	return strings.Split(filepath.ToSlash(rel), "/")
}

func kindOf(way []string) int {
	switch {
	case slices.Equal(way, []string{"ballast"}):
		return kindBallast
	case len(way) < 4 || way[0] != "groups":
		return kindRest
	}
	switch way[2] {
	case "log":
		return kindLog
	case "bodies":
		return kindBodies
	case "snapshots":
		return kindSnapshots
	}
	return kindRest
}

// Raced says that a binary was built with the race detector, which takes several times
// the memory.
func Raced(binary string) bool {
	info, err := buildinfo.ReadFile(binary)
	return err == nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
