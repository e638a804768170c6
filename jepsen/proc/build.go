package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build says how to build the binary.
type Build struct {
	Out     string // path of the binary
	Overlay string // file for go build -overlay; may be empty
	Race    bool
}

// Root is the directory of the module that this process was started in.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: go list -m: %w (jepsen builds onceq from its sources: run it inside them, or name a binary)", err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", errors.New("find the module: this directory is in none (jepsen builds onceq from its sources: run it inside them, or name a binary)")
	}
	return dir, nil
}

// Run builds ./cmd/onceq of the module at root.
func (b Build) Run(ctx context.Context, root string) error {
	args := []string{"build", "-o", b.Out}
	if b.Overlay != "" {
		args = append(args, "-overlay", b.Overlay)
	}
	if b.Race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+filepath.Join("cmd", "onceq"))...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build onceq: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}
