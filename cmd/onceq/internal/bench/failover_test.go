package bench

import (
	"testing"
	"time"
)

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
	want := FailoverRow{Next: "n3", Gap: 120, Detect: 10, Elect: 30, Barrier: 60, Retransmit: 21}
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
	want := FailoverRow{Next: "n2", Gap: 901, Detect: 690, Elect: 110, Barrier: 10, Reconnect: 40, Retransmit: 50}
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
