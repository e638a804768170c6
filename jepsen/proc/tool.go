package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Tool runs a command of onceq that is not a node, and returns what it says and
// its exit code. The error is about running it.
func (c *Cluster) Tool(ctx context.Context, args ...string) (out string, code int, err error) {
	b, err := exec.CommandContext(ctx, cmp.Or(c.cfg.Judge, c.cfg.Binary), args...).CombinedOutput()
	out = strings.TrimSpace(string(b))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return out, exit.ExitCode(), nil
	}
	if err != nil {
		return out, 0, fmt.Errorf("onceq %s: %w", strings.Join(args, " "), err)
	}
	return out, 0, nil
}
