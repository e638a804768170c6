package client

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// The layout of a backup's file, big endian. Append versions, never change one.
//
//	"ONCEQBAK"  version (2)  length of the header (4)  header  CRC32C of all before (4)
//	a part:     kind (1)  number (8)  bodies (4)  length (4)  data  CRC32C of kind to data (4)
//
// The header is a wire.BackupHead. Tables come before bodies. The last part has
// kind 255 and says how many parts and bodies came before it, and the SHA-256 of
// everything up to it: a file without one was cut short. Nothing follows.
const (
	backupMagic       = "ONCEQBAK"
	backupVersion     = 1
	backupHeadMax     = 64 << 10
	backupPartHeader  = 17
	backupEndFields   = 3
	backupBufferBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BackupHead is what a backup says of itself.
type BackupHead = wire.BackupHead

// BackupPart is a part of a backup: tables of the queue machine, or bodies.
type BackupPart = wire.BackupPart

// BackupSummary is what a whole backup amounts to.
type BackupSummary struct {
	Head   BackupHead
	Parts  uint64
	Bodies uint64
	Bytes  int64    // of the file
	Sum    [32]byte // SHA-256 of the file up to its end mark
}

// backupWriter writes a backup's file.
type backupWriter struct {
	w   io.Writer
	sum hash.Hash
	s   BackupSummary
	buf []byte
}

func newBackupWriter(w io.Writer, head BackupHead) (*backupWriter, error) {
	b := &backupWriter{w: w, sum: sha256.New(), s: BackupSummary{Head: head}}
	h := encodeHead(head)
	b.buf = append(b.buf, backupMagic...)
	b.buf = binary.BigEndian.AppendUint16(b.buf, backupVersion)
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(h)))
	b.buf = append(b.buf, h...)
	return b, b.flush(true)
}

func encodeHead(head BackupHead) []byte {
	var w pack.Writer
	head.Append(&w)
	return w.Bytes()
}

// flush writes what is in buf and its checksum.
func (b *backupWriter) flush(summed bool) error {
	b.buf = binary.BigEndian.AppendUint32(b.buf, crc32.Checksum(b.buf, castagnoli))
	if summed {
		b.sum.Write(b.buf)
	}
	n, err := b.w.Write(b.buf)
	b.s.Bytes += int64(n)
	b.buf = b.buf[:0]
	return err
}

func (b *backupWriter) part(p BackupPart) error {
	b.append(p)
	b.s.Parts++
	b.s.Bodies += p.Bodies
	return b.flush(true)
}

func (b *backupWriter) append(p BackupPart) {
	b.buf = append(b.buf, byte(p.Kind))
	b.buf = binary.BigEndian.AppendUint64(b.buf, b.s.Parts)
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(p.Bodies))
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(p.Data)))
	b.buf = append(b.buf, p.Data...)
}

// end writes the end mark.
func (b *backupWriter) end() (BackupSummary, error) {
	b.sum.Sum(b.s.Sum[:0])
	var w pack.Writer
	w.Array(backupEndFields)
	w.Uint(b.s.Parts)
	w.Uint(b.s.Bodies)
	w.Bin(b.s.Sum[:])
	b.append(BackupPart{Kind: wire.BackupEnd, Data: w.Bytes()})
	return b.s, b.flush(false)
}

// ReadBackup reads a backup's file to its end: head is called once, before the
// first part, and part for each part; either may be nil. Data is valid until part
// returns. What is wrong with the file is an ErrBadBackup that names the offset;
// an error of head or part ends the reading.
func ReadBackup(r io.Reader, head func(BackupHead) error, part func(number uint64, p BackupPart) error) (BackupSummary, error) {
	b := &backupReader{r: bufio.NewReaderSize(r, backupBufferBytes), sum: sha256.New()}
	if err := b.head(); err != nil {
		return b.s, err
	}
	if head != nil {
		if err := head(b.s.Head); err != nil {
			return b.s, err
		}
	}
	for {
		p, err := b.part()
		switch {
		case err != nil:
			return b.s, err
		case p.Kind == wire.BackupEnd:
			return b.s, b.ended()
		}
		if part != nil {
			if err := part(b.s.Parts-1, p); err != nil {
				return b.s, err
			}
		}
	}
}

type backupReader struct {
	r   *bufio.Reader
	sum hash.Hash
	s   BackupSummary
	buf []byte
	end []byte // data of the end mark
}

func (b *backupReader) bad(at int64, format string, args ...any) error {
	return newError(wire.CodeBadBackup, "at byte %d: %s", at, fmt.Sprintf(format, args...))
}

// cut is the error for a file that ends, or fails, in the middle of something.
func (b *backupReader) cut(at int64, what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return b.bad(at, "the file ends in the middle of %s: it was cut short", what)
	}
	return fmt.Errorf("read %s at byte %d: %w", what, at, err)
}

// more reads n bytes behind what is in buf. It grows with the bytes that come, not
// with the length that a damaged file claims.
func (b *backupReader) more(n int) error {
	for n > 0 {
		k := min(n, backupBufferBytes)
		at := len(b.buf)
		b.buf = append(b.buf, make([]byte, k)...)
		if got, err := io.ReadFull(b.r, b.buf[at:]); err != nil {
			b.buf = b.buf[:at+got]
			return err
		}
		n -= k
	}
	return nil
}

// checked reads the checksum of what is in buf.
func (b *backupReader) checked() (bool, error) {
	want := crc32.Checksum(b.buf, castagnoli)
	at := len(b.buf)
	if err := b.more(4); err != nil {
		return false, err
	}
	return binary.BigEndian.Uint32(b.buf[at:]) == want, nil
}

func (b *backupReader) head() error {
	start := len(backupMagic) + 6
	if err := b.more(start); err != nil {
		if len(b.buf) == 0 || errors.Is(err, io.EOF) {
			return b.bad(0, "the file is empty")
		}
		return b.notOurs(err)
	}
	if string(b.buf[:len(backupMagic)]) != backupMagic {
		return b.notOurs(nil)
	}
	if v := binary.BigEndian.Uint16(b.buf[len(backupMagic):]); v != backupVersion {
		return b.bad(int64(len(backupMagic)), "version %d of the format, this build reads version %d", v, backupVersion)
	}
	n := int(binary.BigEndian.Uint32(b.buf[len(backupMagic)+2:]))
	if n > backupHeadMax {
		return b.bad(int64(len(backupMagic)+2), "a header of %d bytes", n)
	}
	if err := b.more(n); err != nil {
		return b.cut(int64(start), "the header", err)
	}
	good, err := b.checked()
	switch {
	case err != nil:
		return b.cut(int64(start), "the header", err)
	case !good:
		return b.bad(0, "the header does not match its checksum: it was changed")
	}
	if b.s.Head, err = wire.DecodeBackupHead(b.buf[start : start+n]); err != nil {
		return b.bad(int64(start), "%v", err)
	}
	b.took()
	return nil
}

// notOurs says what a file that is no backup looks like.
func (b *backupReader) notOurs(err error) error {
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read: %w", err)
	}
	return b.bad(0, "the file begins with %.12q: it is no backup of onceq", b.buf[:min(len(b.buf), 12)])
}

func (b *backupReader) took() {
	b.sum.Write(b.buf)
	b.s.Bytes += int64(len(b.buf))
	b.buf = b.buf[:0]
}

func (b *backupReader) part() (p BackupPart, err error) {
	at := b.s.Bytes
	what := fmt.Sprintf("part %d", b.s.Parts)
	if err := b.more(backupPartHeader); err != nil {
		if errors.Is(err, io.EOF) {
			return p, b.bad(at, "the file ends after part %d, without an end mark: it was cut short", b.s.Parts)
		}
		return p, b.cut(at, what, err)
	}
	p.Kind = wire.BackupKind(b.buf[0])
	number := binary.BigEndian.Uint64(b.buf[1:])
	p.Bodies = uint64(binary.BigEndian.Uint32(b.buf[9:]))
	n := binary.BigEndian.Uint32(b.buf[13:])
	if n > wire.BackupPartBytesMax {
		return p, b.bad(at, "%s claims %d bytes, at most %d are possible: it was changed", what, n, wire.BackupPartBytesMax)
	}
	if err := b.more(int(n)); err != nil {
		return p, b.cut(at, what, err)
	}
	good, err := b.checked()
	switch {
	case err != nil:
		return p, b.cut(at, what, err)
	case !good:
		return p, b.bad(at, "%s does not match its checksum: it was changed", what)
	case number != b.s.Parts:
		return p, b.bad(at, "part %d stands in the place of part %d", number, b.s.Parts)
	}
	p.Data = b.buf[backupPartHeader : len(b.buf)-4]
	switch p.Kind {
	case wire.BackupEnd:
		b.end = p.Data
		b.s.Bytes += int64(len(b.buf))
		return p, nil
	case wire.BackupTables, wire.BackupBodies:
	default:
		return p, b.bad(at, "%s has kind %d, which this build does not know", what, p.Kind)
	}
	b.s.Parts++
	b.s.Bodies += p.Bodies
	data := p.Data
	b.took() // the array stays as it is until the next part
	p.Data = data
	return p, nil
}

// ended compares with the end mark.
func (b *backupReader) ended() error {
	at := b.s.Bytes
	b.sum.Sum(b.s.Sum[:0])
	var r pack.Reader
	r.Reset(b.end)
	r.ArrayExact(backupEndFields)
	parts, bodies := r.Uint(), r.Uint()
	var sum [32]byte
	r.BinExact(sum[:])
	switch err := r.Done(); {
	case err != nil:
		return b.bad(at, "the end mark: %v", err)
	case parts != b.s.Parts || bodies != b.s.Bodies:
		return b.bad(at, "the end mark speaks of %d parts with %d bodies, %d with %d were there", parts, bodies, b.s.Parts, b.s.Bodies)
	case sum != b.s.Sum:
		return b.bad(at, "the content does not match the sum in the end mark: it was changed")
	case b.s.Bodies != b.s.Head.Messages:
		return b.bad(at, "the header speaks of %d messages, %d bodies were there", b.s.Head.Messages, b.s.Bodies)
	}
	if _, err := b.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return fmt.Errorf("read behind the end: %w", err)
		}
		return b.bad(at, "something follows the end mark")
	}
	return nil
}
