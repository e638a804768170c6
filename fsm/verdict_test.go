package fsm_test

import (
	"bytes"
	"errors"
	"testing"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/fsm/storage"
)

func verdictOf(voters uint32, values ...uint64) fsm.Verdict {
	v := fsm.Verdict{Index: 7, Version: 1, Voters: voters}
	for i, x := range values {
		v.Values = append(v.Values, fsm.NodeDigest{Node: string(rune('a' + i)), Digest: x})
	}
	return v
}

func verdictCommand(v fsm.Verdict) fsmtest.Command {
	return fsmtest.Command{Kind: fsm.KindVerdict, Payload: fsm.VerdictPayload(v)}
}

func TestVerdict_Judge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		v    fsm.Verdict
		node string
		own  uint64
		want fsm.Finding
	}{
		"all agree":                      {verdictOf(3, 1, 1, 1), "a", 1, fsm.FindingRight},
		"the minority":                   {verdictOf(3, 1, 1, 2), "c", 2, fsm.FindingWrong},
		"the majority":                   {verdictOf(3, 1, 1, 2), "a", 1, fsm.FindingRight},
		"the first of the list is wrong": {verdictOf(3, 2, 1, 1), "a", 2, fsm.FindingWrong},
		"one gave no value and has the right one": {verdictOf(3, 1, 1), "c", 1, fsm.FindingRight},
		"one gave no value and has another":       {verdictOf(3, 1, 1), "c", 2, fsm.FindingWrong},
		"who is no voter has another":             {verdictOf(3, 1, 1, 1), "x", 2, fsm.FindingWrong},
		"all differ":                              {verdictOf(3, 1, 2, 3), "a", 1, fsm.FindingSplit},
		"two of three differ":                     {verdictOf(3, 1, 2), "b", 2, fsm.FindingSplit},
		"two of three differ, about the third":    {verdictOf(3, 1, 2), "c", 1, fsm.FindingNone},
		"a split with what is gone by now":        {verdictOf(3, 1, 2), "b", 1, fsm.FindingNone},
		"half and half":                           {verdictOf(4, 1, 1, 2, 2), "a", 1, fsm.FindingSplit},
		"most values, not most voters":            {verdictOf(5, 1, 1, 2), "a", 1, fsm.FindingSplit},
		"half of the voters agree":                {verdictOf(4, 1, 1), "c", 2, fsm.FindingNone},
		"the word of one":                         {verdictOf(3, 1), "b", 2, fsm.FindingNone},
		"no values":                               {verdictOf(3), "a", 2, fsm.FindingNone},
		"more voters than there can be":           {verdictOf(1<<32-1, 1, 1), "a", 1, fsm.FindingNone},
	} {
		if got := c.v.Judge(c.node, c.own); got != c.want {
			t.Errorf("%s: %v judges %s with %d: %v, want %v", name, c.v.Values, c.node, c.own, got, c.want)
		}
	}
}

func TestVerdict_ChangesNothing_AndIsTheSameOnEveryReplica(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	m.apply(create("q"))
	before := fsm.Rows(m.Machine)
	want := verdictOf(3, 5, 6)
	eff := m.apply(verdictCommand(want))
	if eff.Verdict == nil || eff.Results[0].Status != fsm.StatusOK {
		t.Fatalf("%+v", eff)
	}
	if got := *eff.Verdict; got.Index != 7 || got.Voters != 3 || got.String() != "a has 0000000000000005, b has 0000000000000006" {
		t.Errorf("%+v", got)
	}
	delete(before, "scalars") // the index
	after := fsm.Rows(m.Machine)
	for name, row := range before {
		if after[name] != row {
			t.Errorf("%s has changed", name)
		}
	}
}

func TestVerdict_IsNoRequestOfClients(t *testing.T) {
	t.Parallel()
	var refused *fsm.CheckError
	err := fsm.Check(fsm.KindVerdict, fsm.VerdictPayload(verdictOf(3, 1)), fsm.Limits{})
	if !errors.As(err, &refused) || refused.Status != fsm.StatusUnsupported {
		t.Errorf("check: %v", err)
	}
}

func TestVerdict_ThatDoesNotDecode_IsRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	good := fsm.VerdictPayload(verdictOf(3, 1, 2))
	bad := [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), 0), fsm.VerdictPayload(verdictOf(1, 1, 1))}
	for _, p := range bad {
		eff := m.apply(fsmtest.Command{Kind: fsm.KindVerdict, Payload: p})
		if eff.Verdict != nil || eff.Results[0].Status != fsm.StatusMalformed {
			t.Errorf("%x: %+v", p, eff.Results[0])
		}
	}
}

func TestDigests_TheNewestAreKept_UntilARestore(t *testing.T) {
	t.Parallel()
	m := newMachine(t, fsm.Limits{})
	var noted []fsm.DigestResult
	for range fsm.DigestsKept + 3 {
		m.apply(open(byte(len(noted))))
		noted = append(noted, *m.apply(fsmtest.New(fsmtest.DigestCommand{})).Digest)
	}
	for i, d := range noted {
		got, ok := m.DigestAt(d.Index)
		if kept := i >= 3; ok != kept || kept && got != d.Digest {
			t.Errorf("digest %d of %d: %x, %v", i, len(noted), got, ok)
		}
	}
	if ds := m.Digests(); len(ds) != fsm.DigestsKept || ds[0] != noted[3] || ds[len(ds)-1] != noted[len(noted)-1] {
		t.Errorf("digests %v", ds)
	}
	if _, ok := m.DigestAt(noted[len(noted)-1].Index - 1); ok {
		t.Error("a digest at an index that was no digest entry's")
	}
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	restored := fsm.New(fsm.Config{Group: grp}, storage.NewMemory())
	if err := restored.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if ds := restored.Digests(); len(ds) != 0 {
		t.Errorf("a restored machine says of times before that: %v", ds)
	}
}
