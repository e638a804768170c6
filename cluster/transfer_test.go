package cluster_test

import (
	"errors"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
)

// TestTransfer_IsAnswered: the answer to a transfer is not lost with the
// leadership.
func TestTransfer_IsAnswered(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	c.WaitLeader()
	cl, err := client.Dial(t.Context(), c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range 5 {
		// A digest is answered by the leader alone: the client knows it now.
		c.WaitLeader()
		if _, _, err := cl.Admin().Digest(t.Context()); err != nil {
			t.Fatal(err)
		}
		var old *clustertest.Node
		clustertest.Eventually(t, func() string {
			old = c.WaitLeader()
			err := cl.Admin().TransferLeadership(t.Context(), "")
			if errors.Is(err, client.ErrMembership) {
				return err.Error() // raft has given it up, and that is an answer
			}
			if err != nil {
				t.Fatalf("transfer: %v", err)
			}
			return ""
		})
		c.WaitOtherLeader(old)
	}
}
