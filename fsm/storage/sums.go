package storage

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sumsFile is in a checkpoint and says what else is. Pebble takes a damaged record
// in its list of tables for the end of the list, and goes on without the rest.
//
// It is on disk, text: for each file a line with its size, the CRC32C of its
// content in hexadecimal, and its name, by name; the last line is the CRC32C of
// those before it. Of a table it is the sum of its end alone: its blocks have their
// own, and a snapshot does not read all that is stored. Older builds wrote 0 there,
// and that is still taken.
const sumsFile = "CHECKSUMS"

// tableEndBytes are the end of a table: what it says of itself, and the last part of
// the index, which has its keys. By it a table is not another one of the same size.
const tableEndBytes = 16 << 10

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// writeSums makes the file, durable with its name.
func writeSums(fs vfs.FS, dir string) error {
	sums, err := sumFiles(fs, dir)
	if err != nil {
		return err
	}
	f, err := fs.Create(fs.PathJoin(dir, sumsFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, sums)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkSums compares a checkpoint with its file. There is none in one that an
// older build has made.
func checkSums(fs vfs.FS, dir string) error {
	path := fs.PathJoin(dir, sumsFile)
	b, err := readFile(fs, path)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	want := string(b)
	end := strings.LastIndexByte(strings.TrimSuffix(want, "\n"), '\n') + 1
	if want[end:] != sumOf(want[:end]) {
		return fmt.Errorf("%w: %s: checksum mismatch", ErrBadCheckpoint, path)
	}
	lines := bufio.NewScanner(strings.NewReader(want[:end]))
	for lines.Scan() {
		was := lines.Text()
		_, name, _ := strings.Cut(was, "  ")
		size, sum, err := sumFile(fs, dir, name)
		is := sumLine(size, sum, name)
		switch {
		case isMissing(err):
			return fmt.Errorf("%w: %s is missing", ErrBadCheckpoint, fs.PathJoin(dir, name))
		case err != nil:
			return err
		case is != was && !(isTable(name) && was == sumLine(size, 0, name)):
			return fmt.Errorf("%w: %s: it is %q, and was %q", ErrBadCheckpoint, fs.PathJoin(dir, name), is, was)
		}
	}
	return nil
}

// CheckpointSum tells a checkpoint from every other: it is that of the file in which
// the sums of all its files are.
func CheckpointSum(dir string) (uint32, error) {
	b, err := readFile(vfs.Default, vfs.Default.PathJoin(dir, sumsFile))
	return crc32.Checksum(b, castagnoli), err
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

func sumFiles(fs vfs.FS, dir string) (string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	var all strings.Builder
	for _, n := range names {
		if n == sumsFile {
			continue
		}
		size, sum, err := sumFile(fs, dir, n)
		if err != nil {
			return "", err
		}
		all.WriteString(sumLine(size, sum, n) + "\n")
	}
	return all.String() + sumOf(all.String()), nil
}

func sumLine(size int64, sum uint32, name string) string {
	return fmt.Sprintf("%d %08x  %s", size, sum, name)
}

func sumFile(fs vfs.FS, dir, name string) (size int64, sum uint32, err error) {
	f, err := fs.Open(fs.PathJoin(dir, name))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	size = info.Size()
	content := io.Reader(f)
	if isTable(name) {
		content = io.NewSectionReader(f, max(0, size-tableEndBytes), tableEndBytes)
	}
	all := crc32.New(castagnoli)
	_, err = io.Copy(all, content)
	return size, all.Sum32(), err
}

func sumOf(text string) string {
	return fmt.Sprintf("%08x\n", crc32.Checksum([]byte(text), castagnoli))
}
