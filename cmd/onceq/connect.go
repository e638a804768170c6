package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/contexts"
	"onceq/cmd/onceq/internal/exit"
)

// defaultURL is where a node listens when nobody says otherwise.
const defaultURL = "127.0.0.1:7450"

// target is which cluster a command talks to, and who said so.
type target struct {
	url    string
	origin string
}

// target: the flag or ONCEQ_URL over a context that is named over the one that
// is selected over the default port of this machine.
func (a *app) target(g *globals) (target, error) {
	if g.URL != "" {
		return target{g.URL, "--url or ONCEQ_URL"}, nil
	}
	path, err := contexts.Path(a.Getenv)
	if err != nil {
		if g.ContextName != "" {
			return target{}, err
		}
		return target{defaultURL, "the default"}, nil
	}
	f, err := contexts.Load(path)
	if err != nil {
		return target{}, err
	}
	name := g.ContextName
	if name == "" {
		name = f.Selected
	}
	if name == "" {
		return target{defaultURL, "the default"}, nil
	}
	c, ok := f.Contexts[name]
	if !ok {
		return target{}, &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("no context %q in %s", name, path),
			Hint: didYouMean(name, contextNames(f), "see  onceq context ls")}
	}
	return target{c.URL, fmt.Sprintf("context %q", name)}, nil
}

func contextNames(f contexts.File) []string {
	var names []string
	for n := range f.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// dial connects to the target, or says what could be reached instead.
func (a *app) dial(ctx context.Context, g *globals, opts ...client.Option) (*client.Client, error) {
	t, err := a.target(g)
	if err != nil {
		return nil, err
	}
	c, err := client.Dial(ctx, t.url, append([]client.Option{client.WithLabel("onceq " + version())}, opts...)...)
	if err == nil {
		return c, nil
	}
	if errors.Is(err, client.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		return nil, &exit.Error{Code: exit.Unavailable, Err: fmt.Errorf("%w (%s)", err, t.origin), Hint: a.reachable(g, t)}
	}
	if exit.WireCode(err) == 0 { // nobody was asked: the addresses make no sense
		return nil, exit.Errorf(exit.Usage, "%w (%s)", err, t.origin)
	}
	return nil, err
}

// probeTimeout bounds the look for another cluster after one was not reached.
const probeTimeout = 300 * time.Millisecond

// reachable says what to do when a cluster cannot be reached.
func (a *app) reachable(g *globals, t target) string {
	if path, err := contexts.Path(a.Getenv); err == nil {
		if f, err := contexts.Load(path); err == nil {
			for _, name := range contextNames(f) {
				url := f.Contexts[name].URL
				if addr := answers(url); addr != "" && url != t.url {
					how := "onceq context use " + name
					if g.URL != "" {
						how = fmt.Sprintf("--context %s without --url and ONCEQ_URL", name)
					}
					return fmt.Sprintf("a cluster is listening on %s (context %q): use  %s", addr, name, how)
				}
			}
		}
	}
	if t.url != defaultURL && answers(defaultURL) != "" {
		return fmt.Sprintf("something is listening on %s: use  --url %s", defaultURL, defaultURL)
	}
	return "a local cluster starts with  onceq dev"
}

// answers returns the first address of url that takes a connection.
func answers(url string) string {
	for addr := range strings.SplitSeq(strings.TrimPrefix(url, "onceq://"), ",") {
		c, err := net.DialTimeout("tcp", addr, probeTimeout)
		if err == nil {
			c.Close()
			return addr
		}
	}
	return ""
}

// noQueue adds to an unknown queue which name may have been meant. It is the first of
// names, those of the command, that is not there; the others of them are not meant.
func noQueue(ctx context.Context, c *client.Client, err error, names ...string) error {
	if !errors.Is(err, client.ErrNoQueue) {
		return err
	}
	qs, lerr := c.Admin().Queues(ctx)
	if lerr != nil {
		return err // the names that there are tell which of those is not
	}
	var there []string
	for _, q := range qs {
		there = append(there, q.Name)
	}
	missing := names[0]
	for _, n := range names {
		if n != "" && !slices.Contains(there, n) {
			missing = n
			break
		}
	}
	there = slices.DeleteFunc(there, func(n string) bool { return slices.Contains(names, n) })
	return exit.Hint(err, didYouMean(missing, there, "create it with  onceq queue create "+missing))
}

// didYouMean names what is close to name, or else gives the other advice.
func didYouMean(name string, there []string, otherwise string) string {
	best, at := "", len(name)/3+2
	for _, t := range there {
		if d := distance(strings.ToLower(name), strings.ToLower(t)); d < at {
			best, at = t, d
		}
	}
	if best == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q? Otherwise %s", best, otherwise)
}

// distance counts the letters to insert, delete or replace between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			above := row[j]
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above+1, row[j-1]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}
