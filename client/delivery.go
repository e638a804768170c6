package client

import (
	"context"
	"time"
)

// Delivery is one leased message.
type Delivery struct{}

func (d *Delivery) Body() []byte           { return nil }
func (d *Delivery) BizID() string          { return "" }
func (d *Delivery) Headers() []Header      { return nil }
func (d *Delivery) ID() MessageID          { return MessageID{} }
func (d *Delivery) Queue() string          { return "" }
func (d *Delivery) Attempt() int           { return 0 }
func (d *Delivery) PublishedAt() time.Time { return time.Time{} }

// Ack says that the message is done. nil means that the cluster has committed
// it; ErrLeaseLost that it did not count.
func (d *Delivery) Ack(ctx context.Context) error { return ErrClosed }

// Nack gives the message back, for delivery after delay.
func (d *Delivery) Nack(ctx context.Context, delay time.Duration) error { return ErrClosed }

// Extend makes the lease last by from now.
func (d *Delivery) Extend(ctx context.Context, by time.Duration) error { return ErrClosed }
