package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
)

// TestTransfer_IsAnswered: the answer to a transfer is not lost with the
// leadership.
func TestTransfer_IsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		w.Net.SetDelay(200 * time.Microsecond)
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		for range 10 {
			old := w.Leader()
			if err := c.Admin().TransferLeadership(context.Background(), ""); err != nil {
				t.Errorf("transfer: %v", err)
			}
			w.Leader(old)
			publishN(t, c, "orders", 1)
			time.Sleep(time.Second)
		}
	})
}
