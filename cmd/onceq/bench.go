package main

import "context"

type benchCmd struct{}

// Run is not there yet.
func (b *benchCmd) Run(ctx context.Context, a *app) error { return nil }
