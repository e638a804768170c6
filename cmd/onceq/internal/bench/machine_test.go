package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

// wakeUp is one of a made-up machine.
type wakeUp struct {
	after time.Duration // the one before
	err   error
}

// wakes makes a machine of what happens on it; its processors' time is what is told of
// it, so many ticks at each look.
func wakes(all []wakeUp) waker {
	return func(_ context.Context, period time.Duration, woken func(time.Time, time.Duration) (bool, error)) error {
		now := time.Unix(0, 0)
		for _, w := range all {
			now = now.Add(w.after)
			if w.err != nil {
				return w.err
			}
			if more, err := woken(now, w.after-period); err != nil || !more {
				return err
			}
		}
		return nil
	}
}

func looks(all ...ticks) func() (ticks, error) {
	return func() (t ticks, err error) {
		t, all = all[0], all[1:]
		return t, nil
	}
}

func times(n int, w wakeUp) (all []wakeUp) {
	for range n {
		all = append(all, w)
	}
	return all
}

// TestMachine_StandsStill_WhoCameMeanwhileWaited: what comes while it stands still waits
// for its end, the first the longest; what was before is left out.
func TestMachine_StandsStill_WhoCameMeanwhileWaited(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	onTime := wakeUp{after: ms}
	all := append(times(50, onTime), wakeUp{after: 400 * ms}) // left out
	all = append(all, times(89, onTime)...)
	all = append(all, wakeUp{after: 11 * ms}) // ten came meanwhile: 10 ms ... 1 ms
	all = append(all, times(1000, onTime)...) // behind its end
	row, err := watch(t.Context(), MachineConfig{After: 449 * ms, Time: 100 * ms}, func() {}, wakes(all), looks(ticks{1000, 10}, ticks{1200, 20}))
	if err != nil {
		t.Fatal(err)
	}
	want := MachineRow{Seconds: 0.1, P50: 0.001, P99: 9, P999: 10, Max: 10, Stolen: 0.05}
	if close := func(a, b float64) bool { return a-b < b/100 && b-a < b/100 }; !close(row.Seconds, want.Seconds) || !close(row.P50, want.P50) ||
		!close(row.P99, want.P99) || !close(row.P999, want.P999) || !close(row.Max, want.Max) || !close(row.Stolen, want.Stolen) {
		t.Errorf("got %+v, want %+v", row, want)
	}
}

func TestMachine_CannotBeWatched_IsTold(t *testing.T) {
	t.Parallel()
	refused := errors.New("no real-time priority")
	if _, err := watch(t.Context(), MachineConfig{Time: time.Second}, func() {}, wakes([]wakeUp{{err: refused}}), looks()); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if _, err := watch(t.Context(), MachineConfig{After: time.Hour, Time: time.Second}, func() {}, wakes(times(9, wakeUp{after: time.Second})), looks()); !errors.Is(err, ErrMachine) {
		t.Errorf("it ended before anything was to be seen: %v", err)
	}
	for _, c := range []MachineConfig{{}, {After: -1, Time: 1}} {
		if _, err := Machine(t.Context(), c, func() {}); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
