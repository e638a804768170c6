// Package contexts keeps the named clusters of a user, one of them selected, in
// a file of the user's configuration directory.
package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Context is one cluster.
type Context struct {
	URL  string `json:"url"`
	Data string `json:"data,omitempty"` // of a local cluster: its data directory
}

// File is what is in the file.
type File struct {
	Selected string             `json:"selected"`
	Contexts map[string]Context `json:"contexts"`
}

// Path is where the file is: $ONCEQ_CONTEXTS, or onceq/contexts.json in the
// user's configuration directory.
func Path(getenv func(string) string) (string, error) {
	if p := getenv("ONCEQ_CONTEXTS"); p != "" {
		return p, nil
	}
	if d := getenv("XDG_CONFIG_HOME"); d != "" {
		return filepath.Join(d, "onceq", "contexts.json"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("no HOME and no ONCEQ_CONTEXTS in the environment")
	}
	return filepath.Join(home, ".config", "onceq", "contexts.json"), nil
}

// Load reads the file. No file is an empty one.
func Load(path string) (File, error) {
	f := File{Contexts: map[string]Context{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("contexts in %s: %w", path, err)
	}
	if f.Contexts == nil {
		f.Contexts = map[string]Context{}
	}
	return f, nil
}

// Update changes the file. Two processes that do so at once wait for each
// other, and a reader sees the file before or after.
func Update(path string, change func(*File) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock ends
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	f, err := Load(path)
	if err != nil {
		return err
	}
	if err := change(&f); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
