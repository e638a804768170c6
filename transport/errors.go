package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

var (
	// ErrConnClosed is wrapped by every error of a connection that has ended.
	ErrConnClosed = errors.New("connection closed")
	// ErrConnLost is wrapped by the error of a request that was written, at
	// least in part, when its connection ended: the server may have received
	// it. It wraps ErrConnClosed.
	ErrConnLost error = connLost{}
	// ErrWindow is returned by Send when a publish does not fit into what is
	// left of the connection's publish window. Nothing was sent; there is room
	// again when publishes have been answered.
	ErrWindow = errors.New("publish window is full")
	// ErrTooManyRequests is returned by Send when as many requests are
	// unanswered as the server allows. Nothing was sent.
	ErrTooManyRequests = errors.New("too many unanswered requests on this connection")
	// ErrTooLarge is returned by Send for a payload that never fits: into a
	// frame, or for a publish into the window. Nothing was sent.
	ErrTooLarge = errors.New("request is too large for this connection")
)

type connLost struct{}

func (connLost) Error() string { return "connection lost, the request may have been received" }
func (connLost) Unwrap() error { return ErrConnClosed }

// lostError is ErrConnLost with the reason as text only, see the package
// comment.
func lostError(reason error) error { return fmt.Errorf("%w: %v", ErrConnLost, reason) }

// UnsentError is given to a request of which no byte was written before its
// connection ended: the server has not seen it. It wraps ErrConnClosed. Err says
// why the connection ended and is not part of the chain.
type UnsentError struct {
	Err error
}

func (e *UnsentError) Error() string { return "request was not sent: " + e.Err.Error() }
func (e *UnsentError) Unwrap() error { return ErrConnClosed }

// errSilent, errStalled and errTrickles are reasons to give a connection up.
var (
	errSilent   = errors.New("the peer is silent")
	errStalled  = errors.New("the peer does not read")
	errTrickles = errors.New("the peer does not complete its frame")
)

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// endOf names why reading ended, for people.
func endOf(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the peer closed the connection in the middle of a frame")
	case errors.Is(err, io.EOF):
		return errors.New("the peer closed the connection")
	}
	return err
}
