package bench

import (
	"context"
	"slices"
	"testing"
	"time"

	"onceq/client/onceqtest"
)

// The leader may change by itself before the fault comes. Then another node is hit, and
// nothing can be measured: it is done again.
func TestFailover_TheLeaderHadChanged_StrikesAgain(t *testing.T) {
	cluster := onceqtest.Start(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	struck, healed := []time.Time{}, []string{}
	patient := Patient{
		URL: cluster.URL(),
		Strike: func(context.Context, string) (string, time.Time, error) {
			struck = append(struck, time.Now())
			return "n1", struck[len(struck)-1], nil
		},
		Heal: func(_ context.Context, _, node string) error { healed = append(healed, node); return nil },
		Events: func(since time.Time) ([]Event, error) {
			at := since.Add(time.Millisecond)
			switch len(struck) {
			case 1: // nobody took over
				return nil, nil
			case 2: // an election had begun before
				return []Event{{at, "n3", EventLeads}, {at, "n3", EventServing}, {at.Add(time.Millisecond), "n2", EventSilent}}, nil
			}
			return []Event{{at, "n2", EventEnded}, {at, "n2", EventLeads}, {at, "n2", EventServing}}, nil
		},
		Say: t.Logf,
	}
	var rows []FailoverRow
	if err := Failover(ctx, FailoverConfig{Fault: FaultKill, Runs: 1, Size: 16, Seed: 1}, patient, func(r FailoverRow) { rows = append(rows, r) }); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Next != "n2" || !rows[0].Detected || len(struck) != 3 || !slices.Equal(healed, []string{"n1", "n1", "n1"}) {
		t.Errorf("%+v after %d strikes, healed %v", rows, len(struck), healed)
	}
}

func TestSplit_PartsOfAGap(t *testing.T) {
	at := time.Unix(100, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	confirmed := []time.Time{ms(-2), ms(-1), ms(1), ms(121), ms(122), ms(150)}
	events := []Event{
		{ms(10), "n2", EventEnded}, {ms(12), "n3", EventEnded},
		{ms(40), "n3", EventLeads}, {ms(100), "n3", EventServing},
		{ms(140), "n2", EventLeads}, // of a later election
	}
	row := FailoverRow{}
	split(&row, at, confirmed, events)
	want := FailoverRow{Next: "n3", Gap: 120, Detected: true, Detect: 10, Elect: 30, Barrier: 60, Retransmit: 21}
	if row != want {
		t.Errorf("got  %+v\nwant %+v", row, want)
	}
}

// A leader that is silent and not gone, and a client that connects again: to one node,
// and then to the leader.
func TestSplit_BySilence(t *testing.T) {
	at := time.Unix(100, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	row := FailoverRow{}
	split(&row, at, []time.Time{ms(-1), ms(900)}, []Event{
		{ms(700), "n3", EventSilent}, {ms(690), "n2", EventSilent}, {ms(800), "n2", EventLeads}, {ms(810), "n2", EventServing},
		{ms(-500), "n2", eventConnected}, {ms(820), "n3", eventConnected}, {ms(850), "n2", eventConnected}, {ms(899), "n2", eventConnected},
	})
	want := FailoverRow{Next: "n2", Gap: 901, Detected: true, Detect: 690, Elect: 110, Barrier: 10, Reconnect: 40, Retransmit: 50}
	if row != want {
		t.Errorf("got  %+v\nwant %+v", row, want)
	}
}

// All within the millisecond that the nodes' logs are cut to: it was detected for all that.
func TestSplit_PartsOfLessThanAMillisecond(t *testing.T) {
	cut := time.Unix(100, 0)
	at := cut.Add(500 * time.Microsecond)
	row := FailoverRow{}
	split(&row, at, []time.Time{at.Add(-time.Millisecond), at.Add(time.Millisecond)}, []Event{
		{cut, "n2", EventEnded}, {cut, "n2", EventLeads}, {cut, "n2", EventServing},
	})
	want := FailoverRow{Next: "n2", Gap: 2, Detected: true, Retransmit: 1.5}
	if row != want {
		t.Errorf("got  %+v\nwant %+v", row, want)
	}
}

// A leader that hands over is not missed by anybody.
func TestSplit_ByHandover_NothingIsDetected(t *testing.T) {
	at := time.Unix(100, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	row := FailoverRow{}
	split(&row, at, []time.Time{ms(-1), ms(40)}, []Event{{ms(20), "n2", EventLeads}, {ms(30), "n2", EventServing}, {ms(35), "n1", EventEnded}})
	want := FailoverRow{Next: "n2", Gap: 41, Elect: 20, Barrier: 10, Retransmit: 10}
	if row != want {
		t.Errorf("got  %+v\nwant %+v", row, want)
	}
}

func TestMedian(t *testing.T) {
	rows := []FailoverRow{{Gap: 5}, {Gap: 1}, {Gap: 3}, {Gap: 100}}
	if got := Median(rows, func(r FailoverRow) float64 { return r.Gap }); got != 4 {
		t.Fatal(got)
	}
	if got := Median(nil, func(r FailoverRow) float64 { return r.Gap }); got != 0 {
		t.Fatal(got)
	}
}
