package main

import (
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
)

// publishFlags are options of messages. Which exclude each other the client says.
type publishFlags struct {
	Key      string        `help:"Ordering key: messages of one key are handed out one after another. Excludes --priority, --delay and --at." placeholder:"KEY"`
	Priority int           `help:"0 to 9; the highest goes first." placeholder:"N"`
	Delay    time.Duration `help:"Keep the message back for so long." placeholder:"TIME"`
	At       string        `help:"Keep the message back until then: 2026-12-01T08:00:00Z, or 15:04 for the next time that the clock here shows that. Excludes --delay." placeholder:"WHEN"`
	TTL      time.Duration `name:"ttl" help:"How long the message may wait for a consumer; then it is gone." placeholder:"TIME"`
}

// message is a message with the options.
func (f *publishFlags) message(now time.Time) (client.Message, error) {
	m := client.Message{OrderingKey: f.Key, Priority: f.Priority, Delay: f.Delay, TTL: f.TTL}
	if f.At != "" {
		at, err := parseWhen(f.At, now)
		if err != nil {
			return m, err
		}
		m.DeliverAt = at
	}
	return m, nil
}

// parseWhen reads a moment.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return at, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if at, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		clock, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		at := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location())
		if !at.After(now) {
			at = at.AddDate(0, 0, 1)
		}
		return at, nil
	}
	return time.Time{}, exit.Errorf(exit.Usage, "--at %s: write 2026-12-01T08:00:00Z, \"2026-12-01 08:00\" or 08:00", s)
}
