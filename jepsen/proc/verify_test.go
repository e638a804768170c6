package proc

import "testing"

func TestReadVerified(t *testing.T) {
	t.Parallel()
	const old = "raft log entry 7 in wal at groups/1/log/wal/1.wal, offset 900: entry checksum mismatch"
	const young = "raft log entry 12 in wal at groups/1/log/wal/1.wal, offset 4000: entry checksum mismatch"
	said := func(problems string) string {
		return `{"node": "n1", "snapshot_index": 11, "problems": [` + problems + "]}\nonceq: node n1: problems\n"
	}
	for _, c := range []struct {
		said   string
		code   int
		first  string
		inUse  bool
		number int
	}{
		{said(""), 0, "", false, 0},
		{said(`"` + old + `"`), 8, old, false, 1}, // the snapshot has what is in it
		{said(`"` + young + `"`), 8, young, true, 1},
		{said(`"` + old + `", "` + young + `"`), 8, old, true, 2},
		{said(`"groups/1/log/highwater: damaged"`), 8, "groups/1/log/highwater: damaged", true, 1},
		{"onceq: open raft log: no such file", 1, "node verify: exit code 1: onceq: open raft log: no such file", true, 1},
		{"", 0, "node verify: exit code 0: ", true, 1}, // nothing is not all right
	} {
		v := readVerified(c.said, c.code)
		if len(v.Problems) != c.number || c.number > 0 && v.Problems[0] != c.first || v.InUse() != c.inUse {
			t.Errorf("%s: %+v, in use %v", c.said, v, v.InUse())
		}
	}
}
