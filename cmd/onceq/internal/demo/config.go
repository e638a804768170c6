package demo

import (
	"fmt"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

// Config says what a run does.
type Config struct {
	Binary    string // default: this binary
	Messages  uint64
	Producers int
	Consumers int
	Nodes     int
	Kills     int
	Seed      uint64
	Rate      float64 // messages a second from all producers together; 0: as fast as they go
	BodyBytes int
	Keep      bool // keep the data directory
	LogLevel  string
	// ServerArgs are given to each node beside its own.
	ServerArgs []string
}

// Bounds of a run: what a history may hold in memory.
const (
	messagesMax  = 5_000_000
	producersMax = 256
	consumersMax = 256
	nodesMax     = 9
	killsMax     = 100
	bodyMin      = 40
	bodyMax      = 64 << 10
)

// Validate refuses nonsense before anything starts.
func (c Config) Validate() error {
	for _, b := range []struct {
		name       string
		n, min, mx uint64
	}{
		{"messages", c.Messages, 1, messagesMax},
		{"producers", uint64(c.Producers), 1, producersMax},
		{"consumers", uint64(c.Consumers), 1, consumersMax},
		{"nodes", uint64(c.Nodes), 1, nodesMax},
		{"kills", uint64(c.Kills), 0, killsMax},
		{"body", uint64(c.BodyBytes), bodyMin, bodyMax},
	} {
		if b.n < b.min || b.n > b.mx {
			return exit.Errorf(exit.Usage, "--%s %d: from %d to %d", b.name, int64(b.n), b.min, b.mx)
		}
	}
	if c.Rate < 0 {
		return exit.Errorf(exit.Usage, "--rate %g: 0 or more", c.Rate)
	}
	return nil
}

func (c Config) String() string {
	return fmt.Sprintf("%d nodes, %d producers, %d consumers, %s messages, %d times kill -9 for the leader, seed %d",
		c.Nodes, c.Producers, c.Consumers, console.Count(c.Messages), c.Kills, c.Seed)
}
