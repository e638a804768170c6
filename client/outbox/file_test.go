package outbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"onceq/client"
)

// nowhere is an address where nobody listens.
const nowhere = "127.0.0.1:1"

// filled makes a file with entries that were never sent.
func filled(t *testing.T, n int) string {
	t.Helper()
	file := path(t)
	b := open(t, file, WithURL(nowhere), WithName("svc"))
	for i := range n {
		if _, err := b.Publish(bounded(t), client.Message{BizID: ids("a", i, i)[0], Body: []byte(strings.Repeat("x", 3000))}); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, b)
	return file
}

func TestOpen_WhatDoesNotFit_SaysWhy(t *testing.T) {
	t.Parallel()
	file := filled(t, 2)
	b := open(t, file, WithURL(nowhere))
	if _, err := Open(file, "orders", WithURL(nowhere)); !errors.Is(err, ErrInUse) {
		t.Errorf("open by somebody else: %v", err)
	}
	if _, err := OpenFile(file, true); !errors.Is(err, ErrInUse) {
		t.Errorf("looked into by somebody else: %v", err)
	}
	shut(t, b)
	if _, err := Open(file, "payments", WithURL(nowhere)); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), `"orders"`) {
		t.Errorf("another queue: %v", err)
	}
	if _, err := Open(file, "orders", WithURL(nowhere), WithName("other")); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), `"svc"`) {
		t.Errorf("another name: %v", err)
	}
	for what, opts := range map[string][]Option{
		"nowhere to send to": nil,
		"two places":         {WithURL(nowhere), WithClient(new(client.Client))},
		"no room":            {WithURL(nowhere), WithEntriesMax(0)},
		"no flight":          {WithURL(nowhere), WithMaxInFlight(0)},
		"long name":          {WithURL(nowhere), WithName(strings.Repeat("n", 300))},
	} {
		if _, err := Open(path(t), "orders", opts...); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := Open(path(t), "no spaces", WithURL(nowhere)); err == nil {
		t.Error("bad queue name: no error")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "such", "folder"), "orders", WithURL(nowhere)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestOpen_ForeignFile_IsNotTouched(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 4000)), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("accounts"))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{text, empty, foreign} {
		before, _ := os.ReadFile(file)
		if _, err := Open(file, "orders", WithURL(nowhere)); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
		if after, _ := os.ReadFile(file); string(after) != string(before) {
			t.Errorf("%s was changed", filepath.Base(file))
		}
	}
}

// Whatever byte of the file is damaged, either it is found or it does not matter.
func TestOpen_DamagedFile_IsFound(t *testing.T) {
	t.Parallel()
	file := filled(t, 6)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	found, body := 0, 0
	for at := 100; at < len(good); at += 1009 {
		bad := append([]byte(nil), good...)
		bad[at] ^= 0x55
		if err := os.WriteFile(damaged, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		// To be written it is walked through otherwise, and must be found as damaged too.
		f, err := OpenFile(damaged, at%2 == 0)
		if good[at] == 'x' {
			body++
			// Bodies that were written again by a later transaction may lie about.
		}
		switch {
		case err == nil:
			es, err := f.List(0, 100)
			if err != nil || len(es) != 6 {
				t.Errorf("byte %d: opened, and then %d entries, %v", at, len(es), err)
			}
			for i, e := range es {
				if e.Messages[0].BizID != ids("a", i, i)[0] || string(e.Messages[0].Body) != strings.Repeat("x", 3000) {
					t.Errorf("byte %d: entry %d has another message: %q", at, e.Number, e.Messages[0].BizID)
				}
			}
			f.Close()
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrForeign):
			found++
		default:
			t.Errorf("byte %d: %v", at, err)
		}
	}
	if found == 0 || body == 0 {
		t.Errorf("%d damages found, %d in bodies: the test is blind", found, body)
	}
	for _, size := range []int{1, 4096, len(good) / 2, len(good) - 4096} {
		if err := os.WriteFile(damaged, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := OpenFile(damaged, false); err == nil {
			es, err := f.List(0, 100)
			if err != nil || len(es) != 6 {
				t.Errorf("cut at %d: opened, and then %d entries, %v", size, len(es), err)
			}
			f.Close()
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
			t.Errorf("cut at %d: %v", size, err)
		}
	}
}
