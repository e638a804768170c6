package transport

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"
)

// acceptLoop hands each accepted connection to take until stop is closed, which
// ends it with nil. Running out of descriptors or memory passes: it waits a
// little and goes on.
func acceptLoop(l net.Listener, stop <-chan struct{}, log *slog.Logger, take func(net.Conn)) error {
	const pauseFirst, pauseMax = 5 * time.Millisecond, time.Second
	pause := pauseFirst
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = pauseFirst
			take(nc)
			continue
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if !passes(err) {
			return err
		}
		log.Warn("cannot accept a connection for now", "address", l.Addr().String(), "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return nil
		}
		pause = min(2*pause, pauseMax)
	}
}

func passes(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

type closeWriter interface{ CloseWrite() error }

// closeWrite ends our direction of nc, so that the peer reads all that was
// written and then the end. Connections that cannot do that are left as they
// are.
func closeWrite(nc net.Conn) {
	if cw, ok := nc.(closeWriter); ok {
		_ = cw.CloseWrite() // the peer may be gone; then there is nobody to tell
	}
}

func loggerOr(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
