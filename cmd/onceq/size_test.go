package main

import "testing"

func TestSize(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "1048576": 1 << 20, "7 B": 7, "512MiB": 512 << 20, " 5 GiB ": 5 << 30, "3KiB": 3 << 10, "1TiB": 1 << 40} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || uint64(s) != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "5GB", "1.5GiB", "20000000TiB", "10%"} {
		s := size(9)
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 9 {
			t.Errorf("%q was read as %d", text, s)
		}
	}
}
