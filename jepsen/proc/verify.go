package proc

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Verified is what onceq node verify says of the files of a node.
type Verified struct {
	SnapshotIndex uint64   `json:"snapshot_index"`
	CleanStop     bool     `json:"clean_stop"`
	Problems      []string `json:"problems"`
}

// Verify looks at the files of a node that is down.
func (c *Cluster) Verify(ctx context.Context, name string) (Verified, error) {
	said, code, err := c.Tool(ctx, "node", "verify", "-o", "json", c.DataDir(name))
	if err != nil {
		return Verified{}, err
	}
	return readVerified(said, code), nil
}

// readVerified reads what verify said. One that could not even look has said why, in
// its last line.
func readVerified(said string, code int) (v Verified) {
	if at := strings.IndexByte(said, '{'); at >= 0 && json.NewDecoder(strings.NewReader(said[at:])).Decode(&v) == nil {
		return v
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if why := lines[len(lines)-1]; code != 0 || why == "" {
		v.Problems = []string{"node verify: exit code " + strconv.Itoa(code) + ": " + why}
	}
	return v
}

var damagedEntry = regexp.MustCompile(`^raft log entry (\d+) in `)

// InUse says that a start reads what is damaged. It does not read the entries that its
// snapshot has in it: those come to light when a follower asks for them, or a scrub
// reads them.
func (v Verified) InUse() bool {
	return slices.ContainsFunc(v.Problems, func(p string) bool {
		m := damagedEntry.FindStringSubmatch(p)
		if m == nil {
			return true
		}
		index, err := strconv.ParseUint(m[1], 10, 64)
		return err != nil || index > v.SnapshotIndex
	})
}
