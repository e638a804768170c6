package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"onceq/cmd/onceq/internal/console"
)

// release is the version that is being worked towards.
const release = "0.1.0"

// version is the release, with the revision it was built from if that is known.
func version() string {
	rev, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 8:
				rev = "+" + s.Value[:8]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = ".dirty"
			}
		}
	}
	return release + rev + dirty
}

// versionText is what the version is to people.
func versionText() string {
	return fmt.Sprintf("onceq %s %s %s/%s", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

type versionCmd struct{ outputFlag }

// Run shows the version.
func (v *versionCmd) Run(a *app) error {
	if v.table() {
		_, err := fmt.Fprintln(a.Out, versionText())
		return err
	}
	return console.WriteJSON(a.Out, v.format(), map[string]string{
		"version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
}
