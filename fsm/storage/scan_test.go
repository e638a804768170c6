package storage

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestScan_ReadsACheckpointThatGoesAway: the snapshot that a scan reads may be
// removed by the next one meanwhile.
func TestScan_ReadsACheckpointThatGoesAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	s, err := OpenPebble(Options{Dir: filepath.Join(dir, "live"), Fatal: func(err error) { t.Error(err) }, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1000 {
		s.Put(3, 1, uint64(i), int64(i), fmt.Appendf(nil, "body %d", i))
	}
	v := s.Freeze()
	checkpoint := filepath.Join(dir, "checkpoint")
	if err := v.(Checkpointer).Checkpoint(checkpoint, nil); err != nil {
		t.Fatal(err)
	}
	v.Release()
	var stream bytes.Buffer
	if err := Stream(checkpoint, &stream); err != nil {
		t.Fatal(err)
	}
	linked, err := OpenScan(checkpoint, filepath.Join(dir, "linked"), logger)
	if err != nil {
		t.Fatal(err)
	}
	received, err := ReceiveScan(&stream, filepath.Join(dir, "received"), logger)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(checkpoint); err != nil {
		t.Fatal(err)
	}
	for name, scan := range map[string]*Scan{"linked": linked, "received": received} {
		next := uint64(0)
		err := scan.Each(func(queue uint64, lane uint8, offset uint64, at int64, message []byte) error {
			if want := fmt.Sprintf("body %d", next); queue != 3 || lane != 1 || offset != next || at != int64(next) || string(message) != want {
				return fmt.Errorf("queue %d lane %d offset %d at %d: %q, want %q", queue, lane, offset, at, message, want)
			}
			next++
			return nil
		})
		if err != nil || next != 1000 {
			t.Errorf("%s: %d bodies, %v", name, next, err)
		}
		if err := scan.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s: the directory is left: %v", name, err)
		}
	}
	if _, err := ReceiveScan(bytes.NewReader([]byte("nothing of the kind")), filepath.Join(dir, "bad"), logger); err == nil {
		t.Error("a stream that is none was received")
	}
}
