package transport

import "errors"

var (
	// ErrConnClosed is wrapped by every error of a connection that has ended.
	ErrConnClosed = errors.New("connection closed")
	// ErrConnLost is given to a request that was written, or begun to be,
	// when its connection ended: the server may have received it. It wraps
	// ErrConnClosed.
	ErrConnLost error = connLost{}
	// ErrWindow is returned by Send when a publish does not fit into what is
	// left of the connection's publish window. Nothing was sent.
	ErrWindow = errors.New("publish window is full")
	// ErrTooManyRequests is returned by Send when requestsMax requests are
	// unanswered. Nothing was sent.
	ErrTooManyRequests = errors.New("too many unanswered requests on this connection")
	// ErrTooLarge is returned by Send for a payload that does not fit a frame.
	ErrTooLarge = errors.New("request does not fit a frame")
	// ErrServerClosed is returned by Serve after Close.
	ErrServerClosed = errors.New("server closed")
)

type connLost struct{}

func (connLost) Error() string { return "connection lost: the request may have been received" }
func (connLost) Unwrap() error { return ErrConnClosed }

// UnsentError is given to a request of which no byte was written before its
// connection ended: the server has not seen it. It wraps ErrConnClosed and the
// reason the connection ended for.
type UnsentError struct {
	Err error
}

func (e *UnsentError) Error() string   { return "request was not sent: " + e.Err.Error() }
func (e *UnsentError) Unwrap() []error { return []error{ErrConnClosed, e.Err} }
