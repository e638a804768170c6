//go:build !linux

package bench

import (
	"context"
	"fmt"
	"time"
)

func wakeUps(context.Context, time.Duration, func(time.Time, time.Duration) (bool, error)) error {
	return fmt.Errorf("%w: only on Linux", ErrMachine)
}

func readTicks() (ticks, error) { return ticks{}, nil }
