package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// questions is a transport to voters that answer when a test says so.
type questions struct {
	raft.Transport
	asked chan question
}

type question struct {
	of     raft.ServerID
	answer chan raft.AppendEntriesResponse
}

func (q *questions) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(req.Entries) != 0 || string(req.ID) != "n1" || req.Term != 7 {
		return errors.New("not a heartbeat of n1 in term 7")
	}
	a := make(chan raft.AppendEntriesResponse)
	q.asked <- question{id, a}
	*resp = <-a
	if resp.Term == 0 {
		return errors.New("it cannot be reached")
	}
	return nil
}

func (q *questions) LocalAddr() raft.ServerAddress { return "n1:7450" }
func (q *questions) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte {
	return []byte(id)
}

var (
	follows   = raft.AppendEntriesResponse{Term: 7, Success: true}
	votedOn   = raft.AppendEntriesResponse{Term: 8}
	lost      = raft.AppendEntriesResponse{}
	threeOfUs = []raft.Server{{ID: "n1"}, {ID: "n2"}, {ID: "n3"}}
)

func newQuestions(voters []raft.Server) (*confirmer, *questions, chan struct{}) {
	q, over := &questions{asked: make(chan question)}, make(chan struct{})
	return &confirmer{
		id: "n1", trans: q, peers: map[raft.ServerID]*confirming{}, changed: make(chan struct{}),
		term:   func() (uint64, bool) { return 7, true },
		voters: func() []raft.Server { return voters },
		over:   func() <-chan struct{} { return over },
	}, q, over
}

// background asks in the background.
func (c *confirmer) background() chan bool {
	said := make(chan bool, 1)
	go func() { said <- c.leads(7, nil) }()
	return said
}

// both are the questions to n2 and n3.
func (q *questions) both(t *testing.T) (n2, n3 question) {
	t.Helper()
	var all []question
	for range 2 {
		select {
		case k := <-q.asked:
			all = append(all, k)
		case <-time.After(60 * time.Second):
			t.Fatal("a voter is not asked")
		}
	}
	slices.SortFunc(all, func(a, b question) int { return int(a.of[1]) - int(b.of[1]) })
	if all[0].of != "n2" || all[1].of != "n3" {
		t.Fatalf("asked %s and %s", all[0].of, all[1].of)
	}
	return all[0], all[1]
}

// TestConfirm_AnswerToAnOlderQuestion_DoesNotCount: both voters followed when they were
// asked for an earlier look-up. This leader then stood still; when it goes on it finds
// their answers, and another one leads.
func TestConfirm_AnswerToAnOlderQuestion_DoesNotCount(t *testing.T) {
	t.Parallel()
	c, q, over := newQuestions(threeOfUs)
	end := make(chan struct{})
	first := make(chan bool, 1)
	go func() { first <- c.leads(7, end) }()
	old2, old3 := q.both(t)
	close(end)
	if <-first {
		t.Fatal("it leads, and nobody has said so")
	}
	second := c.background()
	old2.answer <- follows
	old3.answer <- follows
	new2, new3 := q.both(t) // and both are asked once more
	new2.answer <- votedOn
	new3.answer <- lost
	select {
	case yes := <-second:
		t.Fatalf("leads says %v, and no voter has answered yes to a question of now", yes)
	case again := <-q.asked:
		close(over)
		if <-second {
			t.Error("it leads, and its leadership is over")
		}
		again.answer <- votedOn
	}
	go func() { // whoever is asked still
		for k := range q.asked {
			k.answer <- votedOn
		}
	}()
	c.asking.Wait()
	close(q.asked)
}

func TestConfirm_AMajorityFollows_TheOtherStandsStill(t *testing.T) {
	t.Parallel()
	c, q, _ := newQuestions(threeOfUs)
	said := c.background()
	n2, n3 := q.both(t)
	n3.answer <- follows
	if !<-said {
		t.Error("a majority follows, and it does not lead")
	}
	// n2 is not asked once more before it has answered.
	said = c.background()
	next := <-q.asked
	if next.of != "n3" {
		t.Errorf("%s is asked beside a question under way", next.of)
	}
	next.answer <- follows
	if !<-said {
		t.Error("a majority follows, and it does not lead")
	}
	n2.answer <- lost
	c.asking.Wait()
}

func TestConfirm_Alone_AndNotAVoter(t *testing.T) {
	t.Parallel()
	c, _, _ := newQuestions(threeOfUs[:1])
	if !c.leads(7, nil) {
		t.Error("the only voter does not lead")
	}
	// A leader that has removed itself counts only the others.
	c, q, _ := newQuestions(threeOfUs[1:])
	said := c.background()
	n2, n3 := q.both(t)
	n2.answer <- follows
	n3.answer <- follows
	if !<-said {
		t.Error("all voters follow, and it does not lead")
	}
	c.asking.Wait()
}

// The look-up came while this node served in an earlier term, and since then it has been
// elected once more: what another leader has confirmed in between need not be applied here
// yet, whoever follows now.
func TestConfirm_ElectedAgainSinceItServed_DoesNotCount(t *testing.T) {
	t.Parallel()
	c, _, _ := newQuestions(threeOfUs[:1])
	if c.leads(6, nil) {
		t.Error("it leads in term 7, and that was taken for term 6")
	}
}
