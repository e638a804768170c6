package fsm

import (
	"fmt"
	"slices"
	"strings"

	"onceq/transport/wire/pack"
)

// Replicas at one index have one state. A digest entry makes each note its
// digest at that entry's index; the leader collects the values of the voters
// and puts the list into the log as a verdict, which each replica holds against
// its own value. No value counts for more than another, the leader's neither:
// what more than half of the voters have is the truth.
//
// The digests a replica has noted belong to its life and not to the state: a
// snapshot does not hold them, and a replica that was restored since has nothing
// to say about an index before that.

const (
	// DigestsKept is how many digests a replica keeps.
	DigestsKept = 8
	// VerdictValuesMax bounds the values of a verdict.
	VerdictValuesMax = 64
)

// digestRing holds the newest digests, oldest first.
type digestRing struct {
	kept [DigestsKept]DigestResult
	n    int
}

func (r *digestRing) keep(d DigestResult) {
	if r.n == len(r.kept) {
		copy(r.kept[:], r.kept[1:])
		r.n--
	}
	r.kept[r.n] = d
	r.n++
}

// Digests returns the newest digests noted here, oldest first.
func (m *Machine) Digests() []DigestResult { return slices.Clone(m.digests.kept[:m.digests.n]) }

// DigestAt returns the digest noted at an index, false when there is none: it is
// no digest entry's index, too long ago, or from before the machine was restored.
func (m *Machine) DigestAt(index uint64) (digest uint64, ok bool) {
	for _, d := range m.digests.kept[:m.digests.n] {
		if d.Index == index {
			return d.Digest, true
		}
	}
	return 0, false
}

// Verdict is what the voters had at one index.
type Verdict struct {
	Index   uint64
	Version uint32 // of the machine, at the index of the digest
	// Voters is the number of voters, those that gave no value included.
	Voters uint32
	Values []NodeDigest
}

// NodeDigest is what one node had.
type NodeDigest struct {
	Node   string
	Digest uint64
}

// Finding is what a verdict says about one replica.
type Finding uint8

const (
	// FindingNone: nothing is said; too few values, or a split among others.
	FindingNone Finding = iota
	// FindingRight: its value is that of more than half of the voters.
	FindingRight
	// FindingWrong: more than half of the voters have another value.
	FindingWrong
	// FindingSplit: its value was compared with different ones and none is that
	// of more than half of the voters, so that nobody can know who is right.
	FindingSplit
)

// Majority returns the value of more than half of the voters.
func (v *Verdict) Majority() (digest uint64, ok bool) {
	count := make(map[uint64]uint64, len(v.Values))
	for _, x := range v.Values {
		if count[x.Digest]++; 2*count[x.Digest] > uint64(v.Voters) {
			return x.Digest, true
		}
	}
	return 0, false
}

// Judge says what the verdict means for a node whose own value is own. A
// majority's value is the truth for all, also for who comes to it later; a split
// concerns only those whose present values were compared.
func (v *Verdict) Judge(node string, own uint64) Finding {
	truth, ok := v.Majority()
	switch {
	case ok && own == truth:
		return FindingRight
	case ok:
		return FindingWrong
	case 2*uint64(len(v.Values)) > uint64(v.Voters) && slices.Contains(v.Values, NodeDigest{node, own}):
		return FindingSplit // more than half gave a value, so they are not all the same
	}
	return FindingNone
}

// String lists whose values they are.
func (v *Verdict) String() string {
	var b strings.Builder
	for i, x := range v.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s has %016x", x.Node, x.Digest)
	}
	return b.String()
}

// VerdictPayload is the payload of KindVerdict.
func VerdictPayload(v Verdict) []byte {
	var w pack.Writer
	w.Array(4)
	w.Uint(v.Index)
	w.Uint(uint64(v.Version))
	w.Uint(uint64(v.Voters))
	w.Array(len(v.Values))
	for _, x := range v.Values {
		w.Array(2)
		w.Str(x.Node)
		w.Uint(x.Digest)
	}
	return w.Bytes()
}

func (d *decoder) decodeVerdict(p []byte) (v Verdict, err error) {
	r := d.begin(p, 4)
	v.Index, v.Version, v.Voters = r.Uint(), r.Uint32(), r.Uint32()
	for range r.Array(VerdictValuesMax) {
		r.ArrayExact(2)
		x := NodeDigest{Node: r.Str(TermNodeBytesMax), Digest: r.Uint()}
		if r.Err() != nil {
			break
		}
		v.Values = append(v.Values, x)
	}
	if r.Err() == nil && uint64(len(v.Values)) > uint64(v.Voters) {
		r.Failf("%d values of %d voters", len(v.Values), v.Voters)
	}
	return v, r.Done()
}
