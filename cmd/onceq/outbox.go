package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
	"unicode/utf8"

	"onceq/client/outbox"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/format"
)

type outboxCmd struct {
	List    outboxListCmd    `cmd:"" help:"List what is in an outbox."`
	Held    outboxHeldCmd    `cmd:"" help:"List the entries that wait for a decision."`
	Show    outboxShowCmd    `cmd:"" help:"Show one entry, with its messages."`
	Resend  outboxResendCmd  `cmd:"" help:"Let held entries be sent again."`
	Discard outboxDiscardCmd `cmd:"" help:"Remove held entries for good."`
}

// Help explains what is held and shows examples.
func (*outboxCmd) Help() string {
	return `An outbox is the file in which a program keeps what it has to publish, see the
package onceq/client/outbox. The file is locked while its program runs: stop that
first. What is decided here is done when it starts again.

An entry is held when the cluster cannot tell any more whether it is stored (its
session was ended, the cluster was restored from a backup, or a copy of the file was
used), or when it was refused for good. To send again what may be stored may store
it twice; to discard it may lose it. So look first, by its biz-id, in the books of
those who consume the queue, and name the risk with the decision.

Exit code 3: no such file or entry; 4: the program runs; 8: the file is damaged or
is something else.

Examples:
  onceq outbox list orders.outbox
  onceq outbox held orders.outbox -o jsonl
  onceq outbox show orders.outbox 17
  onceq outbox resend orders.outbox 17 18 --may-be-stored-twice
  onceq outbox discard orders.outbox --all --may-never-be-stored --dry-run`
}

type outboxRow struct {
	Number      outbox.Number      `json:"number"`
	State       string             `json:"state"`
	Published   time.Time          `json:"published"`
	Bytes       int                `json:"bytes"`
	Messages    []outboxMessageRow `json:"messages"`
	InnerMsgID  string             `json:"inner_msg_id,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	MayBeStored bool               `json:"may_be_stored"`
	Text        string             `json:"text,omitempty"`
	HeldAt      *time.Time         `json:"held_at,omitempty"`
}

type outboxMessageRow struct {
	format.Keys
	Priority   int     `json:"priority,omitempty"`
	Body       *string `json:"body,omitempty"`        // when it is text
	BodyBase64 []byte  `json:"body_base64,omitempty"` // when it is not
}

func toOutboxRow(e outbox.Entry, bodies bool) outboxRow {
	r := outboxRow{Number: e.Number, State: e.State.String(), Published: e.Published.UTC(), Bytes: e.Bytes}
	for _, m := range e.Messages {
		row := outboxMessageRow{Keys: format.KeysOf(m.BizID, m.OrderingKey), Priority: m.Priority}
		if text := string(m.Body); bodies && utf8.ValidString(text) {
			row.Body = &text
		} else if bodies {
			row.BodyBase64 = m.Body
		}
		r.Messages = append(r.Messages, row)
	}
	if e.ID.Sequence != 0 {
		r.InnerMsgID = e.ID.String()
	}
	r.MayBeStored = e.State == outbox.Sent
	if e.State == outbox.Held {
		at := e.HeldAt.UTC()
		r.Reason, r.MayBeStored, r.Text, r.HeldAt = e.Reason.String(), e.Reason.MayBeStored(), e.Text, &at
	}
	return r
}

// bizIDs are those of an entry, in short.
func (r outboxRow) bizIDs() string {
	if len(r.Messages) == 1 {
		return clip(r.Messages[0].BizID, 40)
	}
	return fmt.Sprintf("%s and %d more", clip(r.Messages[0].BizID, 40), len(r.Messages)-1)
}

// fate is what is known of an entry, in a word or two.
func (r outboxRow) fate() string {
	if r.MayBeStored {
		return "may be"
	}
	return "no"
}

// openOutbox opens a file for one command.
func openOutbox(path string, readOnly bool) (*outbox.File, error) {
	f, err := outbox.OpenFile(path, readOnly)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exit.Error{Code: exit.NotFound, Err: err}
	case errors.Is(err, outbox.ErrInUse):
		return nil, &exit.Error{Code: exit.Conflict, Err: err, Hint: "stop the program that has it open, or let it decide itself (Held, Resend and Discard of its Outbox)"}
	case errors.Is(err, outbox.ErrCorrupt), errors.Is(err, outbox.ErrForeign):
		return nil, &exit.Error{Code: exit.CheckFailed, Err: err}
	}
	return nil, err
}

type outboxListCmd struct {
	outputFlag
	Limit int    `help:"How many at most." default:"1000" placeholder:"N"`
	From  uint64 `help:"First number to list." placeholder:"N"`
	File  string `arg:"" help:"The outbox file."`
}

// Run lists entries.
func (o *outboxListCmd) Run(ctx context.Context, a *app) error {
	return listOutbox(a, o.outputFlag, o.File, o.From, o.Limit, (*outbox.File).List)
}

type outboxHeldCmd struct {
	outputFlag
	Limit int    `help:"How many at most." default:"1000" placeholder:"N"`
	From  uint64 `help:"First number to list." placeholder:"N"`
	File  string `arg:"" help:"The outbox file."`
}

// Run lists held entries.
func (o *outboxHeldCmd) Run(ctx context.Context, a *app) error {
	return listOutbox(a, o.outputFlag, o.File, o.From, o.Limit, (*outbox.File).Held)
}

func listOutbox(a *app, o outputFlag, path string, from uint64, limit int, list func(f *outbox.File, from outbox.Number, limit int) ([]outbox.Entry, error)) error {
	if limit < 1 {
		return exit.Errorf(exit.Usage, "--limit %d: at least 1", limit)
	}
	f, err := openOutbox(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := list(f, outbox.Number(from), limit+1)
	if err != nil {
		return err
	}
	if len(entries) > limit {
		entries = entries[:limit]
		defer a.Note("there are more: see --limit and --from")
	}
	rows := make([]outboxRow, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, toOutboxRow(e, false))
	}
	if !o.table() {
		return console.WriteList(a.Out, o.format(), rows)
	}
	waiting, sent, held := f.Counts()
	a.Note("queue %s  session %s  %d waiting  %d sent  %d held  %s", f.Queue(), f.Name(), waiting, sent, held, console.Bytes(uint64(f.Bytes())))
	grid := console.NewGrid(">ENTRY", "STATE", "BIZ-ID", ">BYTES", ">AGE", "STORED", "REASON")
	for _, r := range rows {
		grid.Row(uint64(r.Number), r.State, r.bizIDs(), r.Bytes, console.Age(time.Since(r.Published)), r.fate(), r.Reason)
	}
	_, err = grid.WriteTo(a.Out)
	return err
}

type outboxShowCmd struct {
	outputFlag
	File  string `arg:"" help:"The outbox file."`
	Entry uint64 `arg:"" help:"Number of the entry."`
}

// Run shows one entry.
func (o *outboxShowCmd) Run(ctx context.Context, a *app) error {
	f, err := openOutbox(o.File, true)
	if err != nil {
		return err
	}
	defer f.Close()
	e, err := f.Entry(outbox.Number(o.Entry))
	if errors.Is(err, outbox.ErrNoEntry) {
		return &exit.Error{Code: exit.NotFound, Err: err, Hint: "what is stored has left the outbox"}
	}
	if err != nil {
		return err
	}
	r := toOutboxRow(e, true)
	if !o.table() {
		return console.WriteJSON(a.Out, o.format(), r)
	}
	grid := console.NewGrid("ENTRY", strconv.FormatUint(uint64(r.Number), 10))
	grid.Row("state", r.State)
	grid.Row("queue", f.Queue())
	grid.Row("published", fmt.Sprintf("%s (%s ago)", r.Published.Format(time.RFC3339), console.Age(time.Since(r.Published))))
	if r.InnerMsgID != "" {
		grid.Row("sent as", r.InnerMsgID)
	}
	if r.Reason != "" {
		grid.Row("held because", r.Reason)
		grid.Row("held since", r.HeldAt.Format(time.RFC3339))
		grid.Row("the cluster said", r.Text)
	}
	grid.Row("stored", r.fate())
	for i, m := range e.Messages {
		name := "message"
		if len(e.Messages) > 1 {
			name = fmt.Sprintf("message %d", i+1)
		}
		grid.Row(name, fmt.Sprintf("biz-id %q, %d bytes: %q", m.BizID, len(m.Body), clip(string(m.Body), 200)))
	}
	_, err = grid.WriteTo(a.Out)
	return err
}

// outboxDecision is what resend and discard have in common.
type outboxDecision struct {
	DryRun  bool     `help:"Say what would happen and do nothing."`
	All     bool     `help:"Everything that is held."`
	File    string   `arg:"" help:"The outbox file."`
	Entries []uint64 `arg:"" optional:"" help:"Numbers of the entries, as 'outbox held' shows them."`
}

type outboxResendCmd struct {
	outboxDecision
	Risk bool `name:"may-be-stored-twice" help:"Also what may be stored already."`
}

// Run lets entries be sent again.
func (o *outboxResendCmd) Run(ctx context.Context, a *app) error {
	risk := outbox.NoRisk
	if o.Risk {
		risk = outbox.MayBeStoredTwice
	}
	return o.run(a, "let %s be sent again", "--may-be-stored-twice", func(f *outbox.File, ns []outbox.Number) error { return f.Resend(risk, ns...) })
}

type outboxDiscardCmd struct {
	outboxDecision
	Risk bool `name:"may-never-be-stored" help:"Needed: what is not stored never will be."`
}

// Run removes entries.
func (o *outboxDiscardCmd) Run(ctx context.Context, a *app) error {
	risk := outbox.NoRisk
	if o.Risk {
		risk = outbox.MayNeverBeStored
	}
	return o.run(a, "discard %s", "--may-never-be-stored", func(f *outbox.File, ns []outbox.Number) error { return f.Discard(risk, ns...) })
}

func (o *outboxDecision) run(a *app, what, flag string, decide func(f *outbox.File, ns []outbox.Number) error) error {
	if o.All == (len(o.Entries) > 0) {
		return exit.Errorf(exit.Usage, "name the entries, or say --all")
	}
	f, err := openOutbox(o.File, false)
	if err != nil {
		return err
	}
	defer f.Close()
	var ns []outbox.Number
	for _, n := range o.Entries {
		ns = append(ns, outbox.Number(n))
	}
	if o.All {
		if ns, err = allHeld(f); err != nil {
			return err
		}
	}
	what = fmt.Sprintf(what, console.Count(len(ns))+" "+entries(len(ns)))
	if o.DryRun {
		a.Note("would %s. Nothing was changed.", what)
		return nil
	}
	err = decide(f, ns)
	switch {
	case errors.Is(err, outbox.ErrRisk):
		return &exit.Error{Code: exit.Usage, Err: err, Hint: "nothing was changed. If that may happen, say so with " + flag}
	case errors.Is(err, outbox.ErrNoEntry):
		return &exit.Error{Code: exit.NotFound, Err: err, Hint: "nothing was changed; see  onceq outbox held " + o.File}
	case err == nil:
		a.Note("done: %s", what)
	}
	return err
}

func entries(n int) string {
	if n == 1 {
		return "entry"
	}
	return "entries"
}

// outboxPage is how many entries are in memory at once.
const outboxPage = 1000

func allHeld(f *outbox.File) (ns []outbox.Number, err error) {
	for from := outbox.Number(0); ; {
		page, err := f.Held(from, outboxPage)
		if err != nil || len(page) == 0 {
			return ns, err
		}
		for _, e := range page {
			ns = append(ns, e.Number)
			from = e.Number + 1
		}
	}
}
