package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/latency"
)

// DiskConfig says which appends are measured.
type DiskConfig struct {
	Dir     string        // on the disk that is measured
	Sizes   []int         // bytes of an append
	Writers []int         // files that are appended to at once, each like the log of a node
	Time    time.Duration // for each
}

// Bounds of DiskConfig.
const (
	// diskFileBytes is how large a file is made before it is written, like a segment
	// of the log; at its end the next one is made.
	diskFileBytes  = 64 << 20
	diskWritersMax = 64
)

// Validate refuses what makes no sense.
func (c DiskConfig) Validate() error {
	for _, n := range c.Sizes {
		if n < 1 || n > diskFileBytes {
			return exit.Errorf(exit.Usage, "--size %d: from 1 to %d", n, diskFileBytes)
		}
	}
	for _, n := range c.Writers {
		if n < 1 || n > diskWritersMax {
			return exit.Errorf(exit.Usage, "--writers %d: from 1 to %d", n, diskWritersMax)
		}
	}
	if c.Time <= 0 {
		return exit.Errorf(exit.Usage, "--time %v: above 0", c.Time)
	}
	return nil
}

// DiskRow is one size with one number of writers.
type DiskRow struct {
	Bytes          int     `json:"bytes"`
	Writers        int     `json:"writers"`
	Appends        int64   `json:"appends"`
	PerSecond      float64 `json:"per_second"`       // appends, of all writers
	BytesPerSecond float64 `json:"bytes_per_second"` // of all writers
	P50            float64 `json:"p50_ms"`           // of a write and what makes it durable
	P99            float64 `json:"p99_ms"`
	Max            float64 `json:"max_ms"`
}

// Disk measures appends that are made durable one by one, which is what a node waits
// for before it confirms anything.
func Disk(ctx context.Context, cfg DiskConfig, say func(format string, args ...any), show func(DiskRow)) error {
	for _, writers := range cfg.Writers {
		for _, size := range cfg.Sizes {
			say("appends of %d bytes, %d at once", size, writers)
			row, err := appends(ctx, cfg, size, writers)
			if err != nil {
				return err
			}
			show(row)
		}
	}
	return nil
}

func appends(ctx context.Context, cfg DiskConfig, size, writers int) (DiskRow, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "onceq-bench-disk-")
	if err != nil {
		return DiskRow{}, err
	}
	h := latency.New()
	errs := make([]error, writers)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range writers {
		wg.Go(func() {
			errs[i] = appendUntil(ctx, filepath.Join(dir, fmt.Sprint(i)), size, began.Add(cfg.Time), h)
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	if err := errors.Join(append(errs, os.RemoveAll(dir), context.Cause(ctx))...); err != nil {
		return DiskRow{}, err
	}
	n := h.Count()
	return DiskRow{
		Bytes: size, Writers: writers, Appends: n, PerSecond: float64(n) / took, BytesPerSecond: float64(n) * float64(size) / took,
		P50: h.Millis(50), P99: h.Millis(99), Max: h.Millis(100),
	}, nil
}

// appendUntil appends once at least.
func appendUntil(ctx context.Context, path string, size int, end time.Time, h *latency.Histogram) (err error) {
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body) // there are disks that leave zeros out
	var f *os.File
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for n, at := 0, int64(diskFileBytes); n == 0 || time.Now().Before(end) && ctx.Err() == nil; n++ {
		if at+int64(size) > diskFileBytes {
			if f != nil {
				if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
					return err
				}
			}
			if f, err = newSegment(path); err != nil {
				return err
			}
			at = 0
		}
		began := time.Now()
		if _, err := f.WriteAt(body, at); err != nil {
			return err
		}
		if err := syncData(f); err != nil {
			return err
		}
		h.Record(time.Since(began))
		at += int64(size)
	}
	return nil
}

// newSegment makes a file that has its length already.
func newSegment(path string) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(reserve(f, diskFileBytes), f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
