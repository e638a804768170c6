package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Build says how to build the binary.
type Build struct {
	Out     string   // path of the binary
	Package string   // default ./cmd/onceq
	Flags   []string // more flags of go build
	Race    bool
}

// Root is the directory of the module that this process was started in.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: go list -m: %w (it is built from the sources of onceq: run this inside them)", err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", errors.New("find the module: this directory is in none (it is built from the sources of onceq: run this inside them)")
	}
	return dir, nil
}

// Run builds a package of the module at root.
func (b Build) Run(ctx context.Context, root string) error {
	if b.Package == "" {
		b.Package = "./cmd/onceq"
	}
	args := append([]string{"build", "-o", b.Out}, b.Flags...)
	if b.Race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, b.Package)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", b.Package, err, bytes.TrimSpace(out))
	}
	return nil
}
