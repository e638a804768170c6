package skew

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Possible says why no clock can be moved here, nil if it can.
func Possible() error { return nil }

// The stub, in the padding of the vDSO, which the process can read and not write:
//
//	offset  i64, seconds
//	code    mov eax, 228 (clock_gettime); syscall
//	        test edi, edi; jnz done          the wall clock is clock 0
//	        test eax, eax; jnz done
//	        mov rdx, [offset]; add [rsi], rdx
//	done:   ret
const (
	offsetAt = 0
	codeAt   = 8
)

var code = []byte{
	0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05,
	0x85, 0xff, 0x75, 14,
	0x85, 0xc0, 0x75, 10,
	0x48, 0x8b, 0x15, 0, 0, 0, 0,
	0x48, 0x01, 0x16,
	0xc3,
}

const (
	loadRel, loadEnd = 18, 22 // of the load: where its operand is, and what that is relative to
	clockFunction    = "__vdso_clock_gettime"
	jump             = 0xe9
	jumpBytes        = 5
)

// Clock is the changed wall clock of a process.
type Clock struct {
	mem  *os.File
	stub int64 // its address
}

// Attach changes a process, which must be stopped. Nothing is different until
// Set.
func Attach(pid int) (*Clock, error) {
	c, err := attach(pid)
	if err != nil {
		return nil, fmt.Errorf("change the clock of process %d: %w", pid, err)
	}
	return c, nil
}

func attach(pid int) (*Clock, error) {
	from, to, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &Clock{mem: mem}
	if err := c.patch(from, to); err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return c, nil
}

// vdso is where a process has its vDSO.
func vdso(pid int) (from, to int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasSuffix(line, "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, errors.New("it has no vDSO")
}

func (c *Clock) patch(from, to int64) error {
	image := make([]byte, to-from)
	if _, err := c.mem.ReadAt(image, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	at, err := symbol(image, clockFunction)
	if err != nil {
		return err
	}
	pad := len(image)
	for pad > 0 && image[pad-1] == 0 {
		pad--
	}
	pad = (pad + 15) / 16 * 16
	if pad+codeAt+len(code) > len(image) {
		return fmt.Errorf("%d bytes behind the vDSO are too few", len(image)-pad)
	}
	c.stub = from + int64(pad)
	stub := append(make([]byte, codeAt), code...)
	// Relative to the end of the instruction.
	relative(stub[codeAt+loadRel:], offsetAt, codeAt+loadEnd)
	if _, err := c.mem.WriteAt(stub, c.stub); err != nil {
		return err
	}
	enter := make([]byte, jumpBytes)
	enter[0] = jump
	relative(enter[1:], int64(pad)+codeAt, at+jumpBytes)
	_, err = c.mem.WriteAt(enter, from+at)
	return err
}

// relative writes how far a place is from the end of an instruction.
func relative(b []byte, place, end int64) { binary.LittleEndian.PutUint32(b, uint32(int32(place-end))) }

// symbol is where a function is in the vDSO.
func symbol(image []byte, name string) (int64, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	all, err := f.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		if s.Name == name {
			return int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("its vDSO has no %s", name)
}

// Set moves the wall clock by so much from the true time, in whole seconds. The
// process need not be stopped.
func (c *Clock) Set(offset time.Duration) error {
	_, err := c.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(offset/time.Second))), c.stub+offsetAt)
	return err
}

// Close lets go of the process. The offset stays.
func (c *Clock) Close() error { return c.mem.Close() }
