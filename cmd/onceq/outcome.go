package main

import (
	"context"
	"fmt"
	"strings"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type outcomeCmd struct {
	outputFlag
	ID   string `arg:"" help:"Id of the publish, such as s1.42.1093."`
	Seal bool   `help:"Settle it for good: if it is not stored by now, it never will be."`
}

// Help explains the answers.
func (*outcomeCmd) Help() string {
	return `Answers what became of a publish whose outcome was unknown (exit code 7).

  stored             exit code 0
  never              exit code 3: sealed, no copy will ever be stored
  not stored so far  exit code 7: a late copy may still arrive; --seal rules that out
  unknown            exit code 7: the cluster can no longer tell

Examples:
  onceq outcome s1.42.1093
  onceq outcome s1.42.1093 --seal`
}

type outcomeRow struct {
	ID      string `json:"inner_msg_id"`
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
	Count   int    `json:"count,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Outputs are the first messages in each queue, of an ack-and-publish.
	Outputs []string `json:"outputs,omitempty"`
}

// Run looks the outcome up, or seals it.
func (o *outcomeCmd) Run(ctx context.Context, a *app, g *globals) error {
	id, err := client.ParseInnerMsgID(o.ID)
	if err != nil {
		return &exit.Error{Code: exit.Usage, Err: err}
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		ask := c.Outcome
		if o.Seal {
			ask = c.Seal
		}
		out, err := ask(ctx, id)
		if err != nil {
			return err
		}
		row, text, code := describe(o.ID, out)
		if !o.table() {
			err = console.WriteJSON(a.Out, o.format(), row)
		} else {
			_, err = fmt.Fprintln(a.Out, text)
		}
		if err == nil && code != exit.OK {
			err = &silent{code}
		}
		return err
	})
}

// describe puts an outcome into words and an exit code.
func describe(id string, out client.Outcome) (outcomeRow, string, int) {
	row := outcomeRow{ID: id, State: out.State.String()}
	switch out.State {
	case client.Stored:
		row.Message, row.Count = out.Message.String(), out.Count
		if len(out.Outputs) > 0 {
			for _, m := range out.Outputs {
				row.Outputs = append(row.Outputs, m.String())
			}
			return row, fmt.Sprintf("acked, and stored %s from %s on", plural(uint64(out.Count), "message"), strings.Join(row.Outputs, ", ")), exit.OK
		}
		if out.Count > 1 {
			return row, fmt.Sprintf("stored as %s and the %d after it", out.Message, out.Count-1), exit.OK
		}
		return row, fmt.Sprintf("stored as %s", out.Message), exit.OK
	case client.Never:
		return row, "never: it is not stored, and no late copy will be", exit.NotFound
	case client.Unknown:
		row.Reason = out.Reason
		return row, "unknown: " + out.Reason, exit.Unknown
	}
	return row, "not stored so far: a late copy may still arrive (rule that out with --seal)", exit.Unknown
}
