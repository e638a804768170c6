package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// What the heap grows into comes in huge pages, and nothing of it was taken for that.
func TestUseHugePages_MarksWhatTheHeapGrowsInto(t *testing.T) {
	const bytes = 256 << 20
	if err := useHugePages(bytes); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var marked, size, resident uint64 // KiB
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Size":
			fmt.Sscan(value, &size)
		case "Rss":
			fmt.Sscan(value, &resident)
		case "VmFlags":
			if strings.Contains(value+" ", " hg ") {
				marked += size
				if resident > size/2 {
					t.Errorf("%d of %d KiB are resident", resident, size)
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if marked < bytes>>10 {
		t.Errorf("%d KiB may come in huge pages, want %d", marked, bytes>>10)
	}
}

// A budget that is larger than the system gives is told, and the process goes on.
func TestUseHugePages_MoreThanThereIs_IsAnError(t *testing.T) {
	if err := useHugePages(60 << 40); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("%v", err)
	}
}
