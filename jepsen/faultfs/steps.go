package faultfs

import (
	"slices"
	"sync"
)

// changes are the kinds of operations that change something. Between each two of
// them a power cut may leave another state.
var changes = []Op{OpWrite, OpTruncate, OpFsync, OpCreate, OpRename, OpRemove}

// steps counts changes for a cut that was planned.
type steps struct {
	mu   sync.Mutex // guards below
	left int        // changes until the cut, the one before which it comes included; 0: none is planned
	loss Loss
	at   string // the change before which the newest planned cut came
}

// CutBefore plans a power cut right before the n-th change from now on; 0 forgets
// the plan, but not a cut that has come: it may just have.
func (s *FS) CutBefore(n int, l Loss) {
	s.steps.mu.Lock()
	defer s.steps.mu.Unlock()
	if s.steps.left, s.steps.loss = max(n, 0), l; n > 0 {
		s.steps.at = ""
	}
}

// CutAt is the change before which the planned cut came, kind and path; "" when it
// has not come.
func (s *FS) CutAt() string {
	s.steps.mu.Lock()
	defer s.steps.mu.Unlock()
	return s.steps.at
}

func (s *steps) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = 0
}

// due says whether the cut comes before this operation.
func (s *steps) due(op Op, name string) (Loss, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 || !slices.Contains(changes, op) {
		return Loss{}, false
	}
	if s.left--; s.left > 0 {
		return Loss{}, false
	}
	s.at = string(op) + " " + name
	return s.loss, true
}
