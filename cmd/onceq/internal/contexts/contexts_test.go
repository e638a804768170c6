package contexts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestPath_EnvironmentFirst(t *testing.T) {
	env := map[string]string{"HOME": "/h"}
	get := func(k string) string { return env[k] }
	for _, step := range []struct{ key, value, want string }{
		{"", "", "/h/.config/onceq/contexts.json"},
		{"XDG_CONFIG_HOME", "/x", "/x/onceq/contexts.json"},
		{"ONCEQ_CONTEXTS", "/c.json", "/c.json"},
	} {
		env[step.key] = step.value
		if got, err := Path(get); err != nil || got != step.want {
			t.Errorf("%s: %q, %v", step.key, got, err)
		}
	}
	if _, err := Path(func(string) string { return "" }); err == nil {
		t.Error("no home and no error")
	}
}

func TestUpdate_AtOnce_LosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "contexts.json")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := Update(path, func(f *File) error {
				f.Contexts[fmt.Sprint(i)] = Context{URL: "u"}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := Load(path)
	if err != nil || len(f.Contexts) != 20 {
		t.Fatalf("%d contexts, %v", len(f.Contexts), err)
	}
}

func TestLoad_NoFile_IsEmpty_BadFile_IsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.json")
	if f, err := Load(path); err != nil || len(f.Contexts) != 0 {
		t.Fatal(f, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
}
