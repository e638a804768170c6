package storage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A checkpoint as a stream, big endian; it goes from node to node and into
// snapshots:
//
//	"ONCEQBOD" version (2) files (4)
//	a file:    length of its name (2)  name  length (8)  content  CRC32C of name and content (4)
const (
	filesMagic   = "ONCEQBOD"
	filesVersion = 1
	filesMax     = 1 << 20
	nameBytesMax = 255
)

// ErrBadCheckpoint is wrapped by the error for a checkpoint that is damaged or
// cut short.
var ErrBadCheckpoint = errors.New("checkpoint of bodies is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkpointFile is one file of a checkpoint.
type checkpointFile struct {
	name string
	size int64
}

// checkpointFiles lists a checkpoint, by name.
func checkpointFiles(fs vfs.FS, dir string) ([]checkpointFile, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	files := make([]checkpointFile, 0, len(names))
	for _, n := range names {
		info, err := fs.Stat(fs.PathJoin(dir, n))
		if err != nil {
			return nil, err
		}
		files = append(files, checkpointFile{n, info.Size()})
	}
	return files, nil
}

// StreamBytes is how long the stream of a checkpoint is.
func StreamBytes(dir string) (int64, error) { return streamBytes(vfs.Default, dir) }

func streamBytes(fs vfs.FS, dir string) (int64, error) {
	files, err := checkpointFiles(fs, dir)
	if err != nil {
		return 0, err
	}
	n := int64(len(filesMagic) + 6)
	for _, f := range files {
		n += int64(2+len(f.name)+8+4) + f.size
	}
	return n, nil
}

// Stream writes a checkpoint as a stream. A table that is damaged is not sent: the error
// wraps ErrBadCheckpoint, and names file and offset.
func Stream(dir string, w io.Writer) error { return sendFiles(vfs.Default, dir, w) }

func sendFiles(fs vfs.FS, dir string, w io.Writer) error {
	files, err := checkpointFiles(fs, dir)
	if err != nil {
		return err
	}
	head := append([]byte(filesMagic), 0, 0)
	binary.BigEndian.PutUint16(head[len(filesMagic):], filesVersion)
	head = binary.BigEndian.AppendUint32(head, uint32(len(files)))
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, f := range files {
		if err := sendFile(fs, dir, f, w); err != nil {
			return fmt.Errorf("%s: %w", fs.PathJoin(dir, f.name), err)
		}
	}
	return nil
}

func sendFile(fs vfs.FS, dir string, f checkpointFile, w io.Writer) error {
	if isTable(f.name) {
		// What the stream's own sum is of is what is read now, and the receiver looks at
		// the ends of tables alone: a block that has rotted here would be good there.
		if err := soundTable(fs, fs.PathJoin(dir, f.name)); err != nil {
			return err
		}
	}
	in, err := fs.Open(fs.PathJoin(dir, f.name))
	if err != nil {
		return err
	}
	defer in.Close()
	head := binary.BigEndian.AppendUint16(nil, uint16(len(f.name)))
	head = append(head, f.name...)
	head = binary.BigEndian.AppendUint64(head, uint64(f.size))
	if _, err := w.Write(head); err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	io.WriteString(sum, f.name)
	if n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(in, f.size)); err != nil || n != f.size {
		return errors.Join(err, fmt.Errorf("%d of %d bytes", n, f.size))
	}
	_, err = w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// passing says that an error is about how many files are open, here or on the machine, and
// not about this one.
func passing(err error) bool { return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) }

// receiveFiles fills a directory from a stream.
func receiveFiles(fs vfs.FS, r io.Reader, dir string) error {
	// The very reader that was given when it is a bufio.Reader already: what comes
	// behind the stream stays in it.
	br := bufio.NewReaderSize(r, 64<<10)
	head := make([]byte, len(filesMagic)+6)
	if _, err := io.ReadFull(br, head); err != nil {
		return fmt.Errorf("%w: header: %w", ErrBadCheckpoint, err)
	}
	version, count := binary.BigEndian.Uint16(head[len(filesMagic):]), binary.BigEndian.Uint32(head[len(filesMagic)+2:])
	switch {
	case string(head[:len(filesMagic)]) != filesMagic:
		return fmt.Errorf("%w: it does not begin with %s", ErrBadCheckpoint, filesMagic)
	case version != filesVersion:
		return fmt.Errorf("%w: version %d, this build knows %d", ErrBadCheckpoint, version, filesVersion)
	case count > filesMax:
		return fmt.Errorf("%w: %d files", ErrBadCheckpoint, count)
	}
	for i := range count {
		if err := receiveFile(fs, br, dir); err != nil {
			return fmt.Errorf("%w: file %d of %d: %w", ErrBadCheckpoint, i+1, count, err)
		}
	}
	return checkSums(fs, dir) // it may have been damaged before it was sent
}

func receiveFile(fs vfs.FS, br *bufio.Reader, dir string) error {
	var fixed [8]byte
	if _, err := io.ReadFull(br, fixed[:2]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(fixed[:2])
	if n == 0 || n > nameBytesMax {
		return fmt.Errorf("a name of %d bytes", n)
	}
	nameBytes := make([]byte, n)
	if _, err := io.ReadFull(br, nameBytes); err != nil {
		return err
	}
	name := string(nameBytes)
	if strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".." {
		return fmt.Errorf("the name %q", name)
	}
	if _, err := io.ReadFull(br, fixed[:]); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	size := int64(binary.BigEndian.Uint64(fixed[:]))
	if size < 0 {
		return fmt.Errorf("%s: %d bytes", name, size)
	}
	out, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	io.WriteString(sum, name)
	// The sum first: Write of a vfs.File may change the bytes that it is given.
	copied, err := io.Copy(io.MultiWriter(sum, out), io.LimitReader(br, size))
	if err == nil && copied != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		// The next checkpoint links this file, and Pebble fsyncs what it has written
		// itself alone: without this a snapshot would name files that a power cut
		// empties.
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := io.ReadFull(br, fixed[:4]); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if want := binary.BigEndian.Uint32(fixed[:4]); want != sum.Sum32() {
		return fmt.Errorf("%s: checksum mismatch", name)
	}
	return nil
}
