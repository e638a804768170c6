package fsm_test

import (
	"strings"
	"testing"
)

// TestEveryCall_ReplyLostAndLateCopy sends each call that changes something again at
// once, as a client does whose reply was lost: the answer is the same. Then something
// else happens, and a copy arrives that was on its way all the time: it changes
// nothing, and what it is told is true. The words are those of the scripts.
func TestEveryCall_ReplyLostAndLateCopy(t *testing.T) {
	t.Parallel()
	const (
		base   = "term node=n1; raise; create q limit=3; open nonce=a"
		three  = base + "; publish q seq=1 a b c"
		leased = three + "; attach c1 n=1 queue=q credit=2"
	)
	cases := []struct {
		name, before, call, between, late string
		// touched: the late copy is known to change something that harms nobody.
		touched bool
		// again, when the answer to a repeat tells that it was done before.
		again string
	}{
		{"open session", base, "open nonce=b", "close s=2; open nonce=c", "open: ok s4 epoch 1 floor 1 next 1", true, ""},
		{"open named session", base, "open nonce=b name=svc", "open nonce=c name=svc expect=1", "open: epoch mismatch s2 epoch 2", false, ""},
		{"reopen named session", base + "; open nonce=b name=svc", "open nonce=c name=svc expect=1", "open nonce=d name=svc expect=2", "open: epoch mismatch s2 epoch 3", false, ""},
		{"close session", base, "close s=1", "open nonce=a", "close: ok", false, ""},
		{"publish", base, "publish q seq=1 x", "attach c1 n=1 queue=q credit=1; ack c1 1", "publish: 1 ok q/0 duplicate", false, ""},
		{"publish, and the floor has passed", base, "publish q seq=1 x", "publish q floor=2 seq=2 y", "publish: 1 below floor", false, ""},
		{"seal", base, "seal s=1 seq=1", "publish q floor=2 seq=2 y", "seal: 1 below floor", false, ""},
		{"attach", base, "attach c1 n=1 queue=q credit=1", "attach c1 n=2 queue=q credit=1", "attach: stale", false, ""},
		{"attach, and it has left", base, "attach c1 n=2 queue=q credit=1", "", "attach: consumer gone", false, ""},
		{"leave", leased, "leave c1 n=1", "attach c2 n=1 queue=q credit=5", "leave: consumer gone", false, "leave: consumer gone"},
		{"ack", leased, "ack c1 1", "ack c1 2-3 done=4", "settle: ok #1 unknown", false, ""},
		{"nack", leased, "nack c1 1 time=5s", "attach c2 n=1 queue=q credit=5", "settle: ok #1 nacked", false, ""},
		{"reject", leased, "reject c1 1", "edit number=1 requeue 0 turn=2", "settle: ok #1 rejected", false, ""},
		{"extend", leased, "extend c1 1", "ack c1 1", "settle: ok #1 acked", false, ""},
		{"receive", three, "receive p1 queue=q n=2", "ack p1 1-2", "receive: stale next #3", false, ""},
		{"release of a receive", three + "; receive p1 queue=q n=2", "release p1 queue=q", "receive p1 queue=q first=3 n=2", "release: ok next #5", false, ""},
		{"release before the receive", three, "release p1 queue=q", "receive p1 queue=q first=2 n=2", "release: ok next #4", false, ""},
		{"create queue", base, "create other", "delete number=2", "create: revision has changed", false, ""},
		{"update queue", base, "update number=1 revision=1 nonce=u lease=1m", "update number=1 revision=2 nonce=v lease=2m", "update: revision has changed", false, ""},
		{"delete queue", base, "delete number=1", "create q deletions=1; publish q seq=1 x", "delete: ok removed 0", false, ""},
		{"purge queue", three, "purge number=1 revision=1 nonce=p", "publish q seq=2 x; pause number=1 revision=2 nonce=r", "purge: revision has changed removed 0", false, ""},
		{"pause queue", three, "pause number=1 revision=1 nonce=p", "resume number=1 revision=2 nonce=r", "pause: revision has changed", false, ""},
		{"resume queue", three + "; pause number=1 revision=1 nonce=p", "resume number=1 revision=2 nonce=r", "pause number=1 revision=3 nonce=s", "pause: revision has changed", false, ""},
		{"delete a message", three, "edit number=1 delete 0 nonce=e", "edit number=1 delete 1 nonce=f", "edit: ok not here", false, ""},
		{"delete a leased message", leased, "edit number=1 delete 0 turn=1 nonce=e", "nack c1 1; detach c1 n=1; edit number=1 delete 2 nonce=f", "edit: ok changed", false, ""},
		{"requeue a parked message", leased + " | reject c1 1", "edit number=1 requeue 0 turn=2 nonce=e", "attach c2 n=1 queue=q credit=9 | reject c2 1", "edit: ok done", false, ""},
		{"take a message from its consumer", leased, "edit number=1 release 0 turn=1 nonce=e", "edit number=1 delete 2 nonce=f", "edit: ok changed", false, ""},
		{"move a message", three + "; create other", "edit number=1 move 0 to=other nonce=e", "edit number=2 move 0 to=q nonce=g; edit number=1 delete 2 nonce=f", "edit: ok not here", false, ""},
		{"ack and publish", leased + "; create out", "ackpublish c1 number=1 s=1 seq=2 out:x", "purge number=2 revision=1 nonce=p", "ackpublish: 2 ok out/0 duplicate", false, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.entryOf(c.before)
			first := s.entryOf(c.call)
			if c.between == "" {
				first = []string{c.late} // refused from the start
			}
			if c.again != "" {
				first[0] = c.again
			}
			if again := s.entryOf(c.call); !sameAnswer(again[0], first[0]) {
				t.Errorf("answered %q, and when asked again %q", first[0], again[0])
			}
			s.entryOf(c.between)
			before := s.m.Digest()
			late := s.entryOf(c.call)
			if late[0] != c.late {
				t.Errorf("the late copy is told %q, expected %q", late[0], c.late)
			}
			if len(late) > 1 {
				t.Errorf("the late copy made more happen: %q", late[1:])
			}
			if changed := s.m.Digest() != before; changed && !c.touched && !s.onlyCounts(c.call) {
				t.Error("the late copy has changed something")
			}
		})
	}
}

// sameAnswer: a repeat may be called a duplicate.
func sameAnswer(again, first string) bool {
	return again == first || again == first+" duplicate"
}

// onlyCounts says that a call notes when it was heard of, or that a duplicate came.
func (s *script) onlyCounts(call string) bool {
	for _, verb := range []string{"publish", "ackpublish", "seal"} {
		if strings.HasPrefix(call, verb+" ") {
			return true
		}
	}
	return false
}

// entryOf applies commands, separated by semicolons, in entries, separated by bars,
// and returns the lines of what became of the last.
func (s *script) entryOf(commands string) []string {
	if commands == "" {
		return []string{""}
	}
	if before, last, several := strings.Cut(commands, "|"); several {
		s.entryOf(before)
		return s.entryOf(last)
	}
	cs := []string{}
	for c := range strings.SplitSeq(commands, ";") {
		cs = append(cs, strings.TrimSpace(c))
	}
	return strings.Split(strings.TrimSuffix(s.apply(cs), "\n"), "\n")
}

// TestWantedAgain_WithWhatWasSeenSince is for the cases above that a caller means anew: with what it has
// seen since, each of them works.
func TestWantedAgain_WithWhatWasSeenSince(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.entryOf("term node=n1; create q; open nonce=a; publish q seq=1 a b; attach c1 n=1 queue=q credit=2")
	s.entryOf("edit number=1 release 0 turn=1 nonce=e")
	for i, c := range []struct{ call, want string }{
		{"edit number=1 release 0 turn=3 nonce=f", "edit: ok done"},
		{"edit number=1 release 0 turn=5 nonce=g", "edit: ok done"},
		{"pause number=1 revision=1 nonce=p", "pause: ok"},
		{"resume number=1 revision=2 nonce=q", "pause: ok"},
		{"delete number=1", "delete: ok removed 2"},
		{"create q", "create: revision has changed"},
		{"create q deletions=1", "create: ok number 2"},
	} {
		if got := s.entryOf(c.call); got[0] != c.want {
			t.Errorf("%d: %s: %s, expected %s", i, c.call, got[0], c.want)
		}
	}
}
