package main

import (
	"fmt"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/contexts"
	"onceq/cmd/onceq/internal/exit"
)

type contextCmd struct {
	Ls  contextLsCmd  `cmd:"" help:"List the contexts."`
	Use contextUseCmd `cmd:"" help:"Select a context, or make one with --to."`
}

// Help explains contexts.
func (*contextCmd) Help() string {
	return `A context is a named cluster. 'onceq dev' writes and selects the context "dev".
--url and ONCEQ_URL go before --context and ONCEQ_CONTEXT, which go before the
selected one.

Examples:
  onceq context ls
  onceq context use dev
  onceq context use prod --to onceq://10.0.0.1:7450,10.0.0.2:7450`
}

type contextLsCmd struct{ outputFlag }

type contextRow struct {
	Name     string `json:"name"`
	Selected bool   `json:"selected"`
	contexts.Context
}

// Run lists the contexts.
func (c *contextLsCmd) Run(a *app) error {
	path, err := contexts.Path(a.Getenv)
	if err != nil {
		return err
	}
	f, err := contexts.Load(path)
	if err != nil {
		return err
	}
	var rows []contextRow
	for _, name := range contextNames(f) {
		rows = append(rows, contextRow{name, name == f.Selected, f.Contexts[name]})
	}
	if !c.table() {
		return console.WriteList(a.Out, c.format(), rows)
	}
	g := console.NewGrid("CONTEXT", "SELECTED", "URL", "DATA")
	for _, r := range rows {
		selected := ""
		if r.Selected {
			selected = "*"
		}
		g.Row(r.Name, selected, r.URL, r.Data)
	}
	_, err = g.WriteTo(a.Out)
	return err
}

type contextUseCmd struct {
	Name string `arg:"" help:"The context."`
	To   string `help:"Nodes of the cluster; makes the context or changes it." placeholder:"HOST:PORT,..."`
}

// Run selects a context.
func (c *contextUseCmd) Run(a *app) error {
	path, err := contexts.Path(a.Getenv)
	if err != nil {
		return err
	}
	return contexts.Update(path, func(f *contexts.File) error {
		if c.To != "" {
			f.Contexts[c.Name] = contexts.Context{URL: c.To}
		}
		if _, ok := f.Contexts[c.Name]; !ok {
			return &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("no context %q", c.Name),
				Hint: didYouMean(c.Name, contextNames(*f), "make it with  onceq context use "+c.Name+" --to HOST:PORT")}
		}
		f.Selected = c.Name
		return nil
	})
}
