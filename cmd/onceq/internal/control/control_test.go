package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

func TestAsk_AnswersErrorsAndCodes(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(dir, func(_ context.Context, r Request) (Reply, error) {
		switch r.Verb {
		case "echo":
			return Reply{Text: r.Arg, Data: json.RawMessage(`[1]`)}, nil
		case "conflict":
			return Reply{}, &exit.Error{Code: exit.Conflict, Err: errors.New("n1 is paused"), Hint: "resume it"}
		}
		return Reply{}, errors.New("no such verb")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	if r, err := Ask(ctx, dir, Request{Verb: "echo", Arg: "hi"}); err != nil || r.Text != "hi" || string(r.Data) != "[1]" {
		t.Fatal(r, err)
	}
	_, err = Ask(ctx, dir, Request{Verb: "conflict"})
	var e *exit.Error
	if !errors.As(err, &e) || e.Code != exit.Conflict || e.Hint != "resume it" {
		t.Fatal(err)
	}
	if _, err = Ask(ctx, dir, Request{Verb: "x"}); exit.Of(err) != exit.Failure {
		t.Fatal(err)
	}
}

func TestAsk_NobodyThere_SaysWhatToStart(t *testing.T) {
	_, err := Ask(t.Context(), t.TempDir(), Request{})
	if exit.Of(err) != exit.Unavailable || !strings.Contains(err.Error(), "no local cluster runs") {
		t.Fatal(err)
	}
}

func TestListen_LeftOverSocket_IsReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill -9
	l.Close()
	s, err := Listen(dir, func(context.Context, Request) (Reply, error) { return Reply{Text: "new"}, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r, err := Ask(t.Context(), dir, Request{}); err != nil || r.Text != "new" {
		t.Fatal(r, err)
	}
}

func TestServer_Garbage_IsAnsweredWithAnError(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(dir, func(context.Context, Request) (Reply, error) { return Reply{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("not json\n"))
	var r Reply
	if err := json.NewDecoder(c).Decode(&r); err != nil || r.Error == "" {
		t.Fatal(r, err)
	}
}

func TestClose_CallsOffWhatIsBeingAnswered(t *testing.T) {
	dir := t.TempDir()
	began := make(chan struct{})
	s, err := Listen(dir, func(ctx context.Context, _ Request) (Reply, error) {
		close(began)
		<-ctx.Done()
		return Reply{}, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := Ask(context.Background(), dir, Request{})
		asked <- err
	}()
	<-began
	s.Close()
	select {
	case err := <-asked:
		if err == nil {
			t.Fatal("an answer after the end")
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the request hangs")
	}
}
