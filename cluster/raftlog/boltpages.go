package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// How boltdb lays out a page (bbolt internal/common/page.go and bucket.go), in the byte order of the machine:
//
//	header  id u64 | flags u16 | count u16 | overflow u32
//	branch  count times: pos u32 | key size u32 | page u64
//	leaf    count times: flags u32 | pos u32 | key size u32 | value size u32
//
// pos counts from the element itself. A page goes on over as many pages behind it as overflow says. The value of a leaf element that is a
// bucket begins with the page of the bucket's root, or with 0, and then the root itself follows after the sequence.
const (
	boltHeader  = 16
	boltElement = 16
	boltBranch  = 1
	boltLeaf    = 2
	boltBucket  = 1 // flag of a leaf element
	boltInline  = 16
)

// boltPages is one walk through the pages of a boltdb file. It checks what the library takes for granted or would end the process
// over (bbolt tx_check.go, verifyPageReachable and verifyKeyOrder), and besides that what a page tells of lies in it. It reads the file,
// not the memory map, which faults where the file was cut short.
type boltPages struct {
	file     *os.File
	pageSize int64
	end      uint64 // the first page that is not in use
	seen     map[uint64]bool
}

func checkBoltPages(path string, tx *bbolt.Tx, pageSize int) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := boltPages{file: file, pageSize: int64(pageSize), end: uint64(tx.Size()) / uint64(pageSize), seen: map[uint64]bool{0: true, 1: true}}
	if _, err := w.page(uint64(tx.Cursor().Bucket().Root()), nil, nil); err != nil {
		return fmt.Errorf("%s %w: %w", path, ErrFileDamaged, err)
	}
	return nil
}

// page checks the page and what hangs from it, whose keys are from least to below most (nil: no bound), and returns the greatest.
func (w *boltPages) page(id uint64, least, most []byte) ([]byte, error) {
	if id >= w.end {
		return nil, fmt.Errorf("page %d of %d", id, w.end)
	}
	first := make([]byte, w.pageSize) // most are no longer
	if err := w.read(first, id, 0); err != nil {
		return nil, err
	}
	header := first[:boltHeader]
	own, overflow := binary.NativeEndian.Uint64(header), uint64(binary.NativeEndian.Uint32(header[12:]))
	switch {
	case own != id:
		return nil, fmt.Errorf("page %d says it is page %d", id, own)
	case overflow >= w.end-id:
		return nil, fmt.Errorf("page %d goes on for %d pages, of %d", id, overflow, w.end)
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	size := int64(overflow+1) * w.pageSize
	if overflow > 0 { // is the file so long?
		if err := w.read(make([]byte, 1), id, size-1); err != nil {
			return nil, err
		}
	}
	at := func(pos, n int64) ([]byte, error) {
		if pos < 0 || n < 0 || pos > size || n > size-pos {
			return nil, fmt.Errorf("page %d of %d bytes tells of bytes %d to %d", id, size, pos, pos+n)
		}
		if pos+n <= w.pageSize {
			return first[pos:][:n], nil
		}
		b := make([]byte, n)
		return b, w.read(b, id, pos)
	}
	greatest, err := w.elements(header, at, least, most)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return greatest, nil
}

// elements checks what the page with the header has in it; at reads a part of the page.
func (w *boltPages) elements(header []byte, at func(pos, n int64) ([]byte, error), least, most []byte) (greatest []byte, err error) {
	flags, count := binary.NativeEndian.Uint16(header[8:]), int64(binary.NativeEndian.Uint16(header[10:]))
	if flags != boltBranch && flags != boltLeaf {
		return nil, fmt.Errorf("type %#x", flags)
	}
	if flags == boltBranch && count == 0 {
		return nil, errors.New("nothing hangs from it")
	}
	table, err := at(boltHeader, count*boltElement)
	if err != nil {
		return nil, err
	}
	u32 := func(i, field int64) int64 { return int64(binary.NativeEndian.Uint32(table[i*boltElement+field:])) }
	key := func(i int64) ([]byte, error) {
		pos, size := u32(i, 0), u32(i, 4)
		if flags == boltLeaf {
			pos, size = u32(i, 4), u32(i, 8)
		}
		return at(boltHeader+i*boltElement+pos, size)
	}
	for i := range count {
		k, err := key(i)
		if err != nil {
			return nil, err
		}
		switch order := bytes.Compare(greatest, k); {
		case i == 0 && bytes.Compare(least, k) > 0, i > 0 && order >= 0:
			return nil, fmt.Errorf("key %d is not in order", i)
		case most != nil && bytes.Compare(k, most) >= 0:
			return nil, fmt.Errorf("key %d belongs to another page", i)
		}
		if greatest = k; flags == boltLeaf {
			if err := w.value(at, u32(i, 0), boltHeader+i*boltElement+u32(i, 4)+u32(i, 8), u32(i, 12)); err != nil {
				return nil, fmt.Errorf("value %d: %w", i, err)
			}
			continue
		}
		below := most
		if i+1 < count {
			if below, err = key(i + 1); err != nil {
				return nil, err
			}
		}
		if greatest, err = w.page(binary.NativeEndian.Uint64(table[i*boltElement+8:]), k, below); err != nil {
			return nil, err
		}
	}
	return greatest, nil
}

// value checks that a value is there, and the bucket that it may be.
func (w *boltPages) value(at func(pos, n int64) ([]byte, error), flags, pos, size int64) error {
	if flags&boltBucket == 0 {
		_, err := at(pos+size, 0)
		return err
	}
	b, err := at(pos, size)
	if err != nil {
		return err
	}
	if len(b) < boltInline {
		return fmt.Errorf("a bucket of %d bytes", len(b))
	}
	if root := binary.NativeEndian.Uint64(b); root != 0 {
		_, err := w.page(root, nil, nil)
		return err
	}
	b = b[boltInline:]
	if len(b) < boltHeader {
		return fmt.Errorf("a bucket in %d bytes", len(b))
	}
	_, err = w.elements(b, func(pos, n int64) ([]byte, error) {
		if pos < 0 || n < 0 || pos > int64(len(b)) || n > int64(len(b))-pos {
			return nil, fmt.Errorf("a bucket in %d bytes tells of bytes %d to %d", len(b), pos, pos+n)
		}
		return b[pos:][:n], nil
	}, nil, nil)
	return err
}

func (w *boltPages) read(b []byte, page uint64, pos int64) error {
	if _, err := w.file.ReadAt(b, int64(page)*w.pageSize+pos); err != nil {
		return fmt.Errorf("page %d at %d: %w", page, pos, err)
	}
	return nil
}
