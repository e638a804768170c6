package wire

import (
	"fmt"
	"time"

	"onceq/transport/wire/pack"
)

// message is what a pointer to each message type can do.
type message[T any] interface {
	*T
	read(r *pack.Reader)
}

// decode reads exactly one T from b.
func decode[T any, P message[T]](b []byte) (T, error) {
	var r pack.Reader
	r.Reset(b)
	var v T
	P(&v).read(&r)
	if err := r.Done(); err != nil {
		var zero T
		return zero, fmt.Errorf("decode %T: %w", zero, err)
	}
	return v, nil
}

// readList reads an array of at most maxLen elements. least is the size of the
// shortest encoding of an element: a list cannot make us allocate for
// elements that the remaining bytes have no room for.
func readList[T any, P message[T]](r *pack.Reader, maxLen, least int) []T {
	n := readLen(r, maxLen, least)
	if n == 0 {
		return nil
	}
	list := make([]T, n)
	for i := range list {
		P(&list[i]).read(r)
		if r.Err() != nil {
			return nil
		}
	}
	return list
}

func readLen(r *pack.Reader, maxLen, least int) int {
	n := r.Array(maxLen)
	if n > r.Remaining()/least {
		r.Failf("array of %d elements in %d bytes", n, r.Remaining())
		return 0
	}
	return n
}

func appendList[T interface{ Append(w *pack.Writer) }](w *pack.Writer, list []T) {
	w.Array(len(list))
	for _, v := range list {
		v.Append(w)
	}
}

// readBin reads bytes as a view into the payload; none is nil.
func readBin(r *pack.Reader, maxLen int) []byte {
	b := r.Bin(maxLen)
	if len(b) == 0 {
		return nil
	}
	return b
}

func readDuration(r *pack.Reader) time.Duration { return time.Duration(r.Int()) }

// HelloVersion reads only the version of a Hello, which stands first in the
// hello of every version of the protocol.
func HelloVersion(b []byte) (uint16, error) {
	var r pack.Reader
	r.Reset(b)
	if n := r.Array(len(b)); n == 0 && r.Err() == nil {
		r.Failf("hello without a version")
	}
	v := r.Uint16()
	if err := r.Err(); err != nil {
		return 0, fmt.Errorf("decode the version of a hello: %w", err)
	}
	return v, nil
}
