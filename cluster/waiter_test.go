package cluster

import (
	"testing"

	"onceq/fsm"
	"onceq/transport/wire"
)

// TestOutcome_ASpentBudgetIsAnErrorThatMayBeRetried, whatever was asked for.
func TestOutcome_ASpentBudgetIsAnErrorThatMayBeRetried(t *testing.T) {
	t.Parallel()
	busy := appliedOutcome(&fsm.Result{Status: fsm.StatusBusy}, &fsm.Effects{}, 7)
	if busy.Err == nil || busy.Err.Code != wire.CodeOverloaded || !busy.Err.Retriable {
		t.Errorf("busy is answered with %+v", busy.Err)
	}
	for _, st := range []fsm.Status{fsm.StatusOK, fsm.StatusLeaseCap} {
		if o := appliedOutcome(&fsm.Result{Status: st}, &fsm.Effects{}, 7); o.Err != nil || o.Result.Status != st || o.Index != 7 {
			t.Errorf("%d is answered with %+v", st, o)
		}
	}
}
