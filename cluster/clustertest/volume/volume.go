// Package volume gives tests file systems of their own: small ones that fill up,
// and ones whose power is cut. They are real, so they take a Linux machine and
// root. Elsewhere such a test is skipped; where nothing may be skipped that is
// noticed.
package volume

import "testing"

// missing ends a test that cannot have what it needs.
func missing(t testing.TB, what string) {
	t.Helper()
	t.Skipf("this test needs %s", what)
}
