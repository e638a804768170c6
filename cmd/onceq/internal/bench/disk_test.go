package bench

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDisk_EachSizeWithEachNumberOfWriters: once at least, over more files than one,
// and nothing is left behind.
func TestDisk_EachSizeWithEachNumberOfWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := DiskConfig{Dir: dir, Sizes: []int{1, diskFileBytes}, Writers: []int{1, 3}, Time: time.Nanosecond}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var rows []DiskRow
	if err := Disk(t.Context(), cfg, t.Logf, func(r DiskRow) { rows = append(rows, r) }); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 4 {
		t.Fatalf("%+v", rows)
	}
	for i, r := range rows {
		if r.Bytes != cfg.Sizes[i%2] || r.Writers != cfg.Writers[i/2] || r.Appends != int64(r.Writers) || r.PerSecond <= 0 || r.P50 <= 0 || r.Max < r.P99 || r.P99 < r.P50 {
			t.Errorf("%+v", r)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDisk_ADirectoryThatIsNotThere_IsNamed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	err := Disk(t.Context(), DiskConfig{Dir: dir, Sizes: []int{1}, Writers: []int{1}, Time: 1}, t.Logf, func(DiskRow) { t.Error("it was measured") })
	if !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

func TestDiskConfig_RefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	for _, c := range []DiskConfig{
		{Sizes: []int{0}, Writers: []int{1}, Time: 1}, {Sizes: []int{diskFileBytes + 1}, Writers: []int{1}, Time: 1},
		{Sizes: []int{1}, Writers: []int{0}, Time: 1}, {Sizes: []int{1}, Writers: []int{diskWritersMax + 1}, Time: 1},
		{Sizes: []int{1}, Writers: []int{1}},
	} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
