package cluster

import "testing"

// A node that becomes the leader while it is asked must not call itself that of the
// term before, in which another led.
func TestInOneTerm_TheTermChangesMeanwhile_LooksAgain(t *testing.T) {
	t.Parallel()
	now, role, looks := uint64(2), "", 0
	term := inOneTerm(func() uint64 { return now }, func() {
		if looks++; looks == 1 {
			now = 3 // it has been elected
		}
		role = "leader"
	})
	if term != 3 || role != "leader" || looks != 2 {
		t.Errorf("%s of term %d after %d looks", role, term, looks)
	}
}
