package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/onceqtest"
	"onceq/client/outbox"
	"onceq/cmd/onceq/internal/exit"
)

// heldOutbox is a file with two entries that were in flight when an operator ended
// their session, and one that waits.
func heldOutbox(t *testing.T) (file string, open func() *outbox.Outbox, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c = onceqtest.Start(t, 1).Client()
	admin := c.Admin()
	if _, err := admin.CreateQueue(ctx, "orders", client.QueueSettings{LengthMax: 1}); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "orders.outbox")
	open = func() *outbox.Outbox {
		b, err := outbox.Open(file, "orders", outbox.WithClient(c), outbox.WithName("svc"), outbox.WithMaxInFlight(2))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open()
	for _, id := range []string{"order-1", "order-2", "order-3", "order-4"} {
		if _, err := b.Publish(ctx, client.Message{BizID: id, Body: []byte("body of " + id)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two are in flight", func() bool { s := b.Stats(); return s.Stored == 1 && s.Sent == 2 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := admin.Sessions(ctx, 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == "svc" {
			err = errors.Join(err, admin.EndSession(ctx, s))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b = open()
	eventually(t, "they are held", func() bool { return b.Stats().Held == 2 })
	inProcess(t, "", "outbox", "list", file).want(t, exit.Conflict, "another process has the file open", "stop the program")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return file, open, c
}

func TestOutbox_HeldEntriesAreShownAndDecided(t *testing.T) {
	file, open, c := heldOutbox(t)
	list := inProcess(t, "", "outbox", "list", file).want(t, exit.OK, "ENTRY  STATE", "order-2", "order-4", "session expired", "may be")
	if n := strings.Count(list.out, "\n"); n != 4 {
		t.Errorf("list has %d lines:\n%s", n, list.out)
	}
	held := inProcess(t, "", "outbox", "held", file, "-o", "jsonl").want(t, exit.OK)
	var row outboxRow
	if err := json.Unmarshal([]byte(strings.SplitAfter(held.out, "\n")[0]), &row); err != nil {
		t.Fatal(err)
	}
	if row.Number != 2 || row.State != "held" || row.Reason != "session expired" || !row.MayBeStored || row.Messages[0].BizID != "order-2" || row.InnerMsgID == "" {
		t.Errorf("row %+v", row)
	}
	inProcess(t, "", "outbox", "show", file, "2").want(t, exit.OK, "body of order-2", "held because", "s1.")
	inProcess(t, "", "outbox", "show", file, "1").want(t, exit.NotFound, "has left the outbox")

	inProcess(t, "", "outbox", "resend", file, "2").want(t, exit.Usage, "may be stored already", "nothing was changed", "--may-be-stored-twice")
	inProcess(t, "", "outbox", "discard", file, "2").want(t, exit.Usage, "--may-never-be-stored")
	inProcess(t, "", "outbox", "resend", file, "4", "--may-be-stored-twice").want(t, exit.NotFound, "not held")
	inProcess(t, "", "outbox", "resend", file).want(t, exit.Usage, "--all")
	inProcess(t, "", "outbox", "resend", file, "--all", "--may-be-stored-twice", "--dry-run").want(t, exit.OK, "would let 2 entries be sent again")
	inProcess(t, "", "outbox", "resend", file, "2", "--may-be-stored-twice").want(t, exit.OK, "done: let 1 entry be sent again")
	inProcess(t, "", "outbox", "discard", file, "--all", "--may-never-be-stored").want(t, exit.OK, "done: discard 1 entry")

	// The program goes on with what was decided.
	if _, err := c.Admin().UpdateQueue(t.Context(), "orders", func(s *client.QueueSettings) { s.LengthMax = 10 }); err != nil {
		t.Fatal(err)
	}
	b := open()
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := c.Admin().Peek(ctx, "orders", client.PeekOptions{Bodies: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, m := range p.Messages {
		got[m.Content.BizID]++
	}
	if len(got) != 3 || got["order-1"] != 1 || got["order-2"] != 1 || got["order-4"] != 1 {
		t.Errorf("stored %v", got)
	}
}

func TestOutbox_WhatIsNoOutbox_IsTold(t *testing.T) {
	dir := t.TempDir()
	inProcess(t, "", "outbox", "list", filepath.Join(dir, "none")).want(t, exit.NotFound)
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	inProcess(t, "", "outbox", "held", text).want(t, exit.CheckFailed, "not an outbox file")
}
