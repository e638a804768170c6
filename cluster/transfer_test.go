package cluster_test

import (
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
)

// TestTransfer_IsAnswered: the answer to a transfer is not lost with the
// leadership.
func TestTransfer_IsAnswered(t *testing.T) {
	c := clustertest.New(t, 3)
	c.WaitLeader()
	cl, err := client.Dial(t.Context(), c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range 5 {
		// A digest is answered by the leader alone: the client knows it now.
		old := c.WaitLeader()
		if _, _, err := cl.Admin().Digest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.Admin().TransferLeadership(t.Context(), ""); err != nil {
			t.Fatalf("transfer: %v", err)
		}
		c.WaitOtherLeader(old)
	}
}
