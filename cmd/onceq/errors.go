package main

import (
	"fmt"
	"strconv"
	"strings"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/transport/wire"
)

type errorsCmd struct {
	outputFlag
	Code string `arg:"" optional:"" help:"Code, such as ONCEQ-2010 or 2010. Without it, all are listed."`
}

// Help shows examples.
func (*errorsCmd) Help() string {
	return `Works without a cluster.

Examples:
  onceq errors
  onceq errors ONCEQ-2010`
}

type errorRow struct {
	Code      string `json:"code"`
	Name      string `json:"name"`
	What      string `json:"what"`
	Why       string `json:"why"`
	Do        string `json:"do"`
	Retriable bool   `json:"retriable"`
	Exit      int    `json:"exit_code"`
}

func toErrorRow(c wire.Code, e wire.Explanation) errorRow {
	return errorRow{fmt.Sprintf("ONCEQ-%d", c), e.Name, e.What, e.Why, e.Do, e.Retriable, exit.OfCode(c)}
}

// Run explains one code, or lists all.
func (e *errorsCmd) Run(a *app) error {
	if e.Code == "" {
		return e.list(a)
	}
	digits := strings.TrimPrefix(strings.ToUpper(e.Code), "ONCEQ-")
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return exit.Errorf(exit.Usage, "%q is not a code: it looks like ONCEQ-2010 or 2010", e.Code)
	}
	ex, ok := wire.Explain(wire.Code(n))
	if !ok {
		return &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("no code ONCEQ-%d", n), Hint: "see  onceq errors"}
	}
	row := toErrorRow(wire.Code(n), ex)
	if !e.table() {
		return console.WriteJSON(a.Out, e.format(), row)
	}
	retry := "The same request may succeed later."
	if !row.Retriable {
		retry = "The same request will not succeed later by itself."
	}
	_, err = fmt.Fprintf(a.Out, "%s  %s  (exit code %d)\n\n%s\n\nWhy: %s\n\nWhat to do: %s\n\n%s\n",
		a.Paint(row.Code, console.Bold), row.Name, row.Exit, row.What, row.Why, row.Do, retry)
	return err
}

func (e *errorsCmd) list(a *app) error {
	var rows []errorRow
	for _, c := range wire.Codes() {
		if ex, ok := wire.Explain(c); ok {
			rows = append(rows, toErrorRow(c, ex))
		}
	}
	if !e.table() {
		return console.WriteList(a.Out, e.format(), rows)
	}
	g := console.NewGrid("CODE", "NAME", "RETRY", ">EXIT")
	for _, r := range rows {
		g.Row(r.Code, r.Name, yes(r.Retriable), r.Exit)
	}
	_, err := g.WriteTo(a.Out)
	return err
}
