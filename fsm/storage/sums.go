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
// those before it. Of a table the sum is 0: its blocks have their own.
const sumsFile = "CHECKSUMS"

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
	f, err := fs.Open(path)
	if err != nil {
		if isMissing(err) {
			return nil
		}
		return err
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	want := string(b)
	end := strings.LastIndexByte(strings.TrimSuffix(want, "\n"), '\n') + 1
	if want[end:] != sumOf(want[:end]) {
		return fmt.Errorf("%w: %s: checksum mismatch", ErrBadCheckpoint, path)
	}
	lines := bufio.NewScanner(strings.NewReader(want[:end]))
	for lines.Scan() {
		_, name, _ := strings.Cut(lines.Text(), "  ")
		line, err := sumFile(fs, dir, name)
		switch {
		case isMissing(err):
			return fmt.Errorf("%w: %s is missing", ErrBadCheckpoint, fs.PathJoin(dir, name))
		case err != nil:
			return err
		case strings.TrimSuffix(line, "\n") != lines.Text():
			return fmt.Errorf("%w: %s: it is %q, and was %q", ErrBadCheckpoint, fs.PathJoin(dir, name), strings.TrimSuffix(line, "\n"), lines.Text())
		}
	}
	return nil
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
		line, err := sumFile(fs, dir, n)
		if err != nil {
			return "", err
		}
		all.WriteString(line)
	}
	return all.String() + sumOf(all.String()), nil
}

func sumFile(fs vfs.FS, dir, name string) (string, error) {
	f, err := fs.Open(fs.PathJoin(dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := crc32.New(castagnoli)
	if !strings.HasSuffix(name, ".sst") {
		if _, err := io.Copy(sum, f); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d %08x  %s\n", info.Size(), sum.Sum32(), name), nil
	}
	return fmt.Sprintf("%d %08x  %s\n", info.Size(), 0, name), nil
}

func sumOf(text string) string {
	return fmt.Sprintf("%08x\n", crc32.Checksum([]byte(text), castagnoli))
}
