// Package control lets one process ask another on this machine for something,
// over a socket in a directory that both know. A request and its reply are a
// line of JSON each; a connection carries one of them.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

// Limits of a socket whose other end is the user's own.
const (
	lineBytesMax   = 64 << 10
	connectionsMax = 16
	requestTimeout = 5 * time.Second // for the request to arrive, not for the answer
)

// Request asks for a verb on an argument.
type Request struct {
	Verb string `json:"verb"`
	Arg  string `json:"arg,omitempty"`
}

// Reply answers it: with a text for people, data, or an error and its exit code.
type Reply struct {
	Text  string          `json:"text,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
	Error string          `json:"error,omitempty"`
	Hint  string          `json:"hint,omitempty"`
	Code  int             `json:"code,omitempty"`
}

// Handler answers requests, several at once.
type Handler func(ctx context.Context, r Request) (Reply, error)

// socketPath is where the socket of dir is, by the shorter of its two names,
// since the system allows about a hundred bytes.
func socketPath(dir string) string {
	p := filepath.Join(dir, "control.sock")
	abs, err := filepath.Abs(p)
	if err != nil {
		return p
	}
	wd, err := os.Getwd()
	if err != nil {
		return abs
	}
	if rel, err := filepath.Rel(wd, abs); err == nil && len(rel) < len(abs) {
		return rel
	}
	return abs
}

// Server answers requests until it is closed.
type Server struct {
	l      net.Listener
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// Listen opens the socket of dir. The caller has made sure that no other
// server uses dir: what an earlier one left behind is removed.
func Listen(dir string, h Handler) (*Server, error) {
	path := socketPath(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{l: l, cancel: cancel}
	s.wait.Go(func() { s.serve(ctx, h) })
	return s, nil
}

func (s *Server) serve(ctx context.Context, h Handler) {
	room := make(chan struct{}, connectionsMax)
	for {
		room <- struct{}{}
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.wait.Go(func() {
			defer func() { c.Close(); <-room }()
			answer(ctx, c, h)
		})
	}
}

func answer(ctx context.Context, c net.Conn, h Handler) {
	c.SetReadDeadline(time.Now().Add(requestTimeout))
	line, err := bufio.NewReader(io.LimitReader(c, lineBytesMax)).ReadBytes('\n')
	var r Request
	var reply Reply
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err == nil {
		reply, err = h(ctx, r)
	}
	if err != nil {
		reply = Reply{Error: err.Error(), Code: exit.Of(err)}
		var e *exit.Error
		if errors.As(err, &e) {
			reply.Hint = e.Hint
		}
	}
	c.SetWriteDeadline(time.Now().Add(requestTimeout))
	json.NewEncoder(c).Encode(reply) // who asked may be gone
}

// Close ends the server, calls off what is being answered and waits for it.
func (s *Server) Close() {
	s.cancel()
	s.l.Close()
	s.wait.Wait()
}

// Ask sends a request to the server of dir. An error that the server answered
// comes with its exit code.
func Ask(ctx context.Context, dir string, r Request) (Reply, error) {
	var reply Reply
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return reply, &exit.Error{Code: exit.Unavailable, Err: fmt.Errorf("no local cluster runs with %s", dir),
			Hint: "start one with  onceq dev , or name its directory with --data"}
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return reply, fmt.Errorf("ask the local cluster: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(c, lineBytesMax)).Decode(&reply); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return reply, fmt.Errorf("ask the local cluster: %w", err)
	}
	if reply.Error != "" {
		return reply, &exit.Error{Code: reply.Code, Err: errors.New(reply.Error), Hint: reply.Hint}
	}
	return reply, nil
}
