package outbox

import (
	"fmt"
	"log/slog"

	"onceq/client"
	"onceq/transport/wire"
)

const (
	entriesMaxDefault  = 1_000_000
	bytesMaxDefault    = 1 << 30
	inFlightMaxDefault = 4096
	// inFlightMost keeps what was sent within the window of a session.
	inFlightMost = 32_768
	// inFlightBytesMax bounds the memory of what is sent and has no outcome; one entry
	// may always be.
	inFlightBytesMax = 64 << 20
	// bodyMaxDefault is what a body may have before any cluster was asked.
	bodyMaxDefault = 1 << 20
)

type options struct {
	client     *client.Client
	url        string
	clientOpts []client.Option
	name       string
	entriesMax int
	bytesMax   int
	inFlight   int
	fail       bool
	results    func(Result)
	logger     *slog.Logger
	step       func(name string) // nil but in tests
}

// Option changes how Open opens an outbox.
type Option func(*options)

// WithClient sends through c, which the program closes after the Outbox.
func WithClient(c *client.Client) Option { return func(o *options) { o.client = c } }

// WithURL makes a client of its own, dialled as often as it takes: entries are taken
// also while no node can be reached.
func WithURL(url string, opts ...client.Option) Option {
	return func(o *options) { o.url, o.clientOpts = url, opts }
}

// WithName names the session, as "onceq session ls" shows it. It is kept in the
// file and cannot be changed. The default is made up when the file is made. Two
// files must not have the same name: they fence each other.
func WithName(name string) Option { return func(o *options) { o.name = name } }

// WithEntriesMax bounds the entries in the file, those that are held included.
// Default 1,000,000.
func WithEntriesMax(n int) Option { return func(o *options) { o.entriesMax = n } }

// WithBytesMax bounds the bytes of the entries in the file. The file may become twice
// as large and never shrinks; its space is used again. Default 1 GiB.
func WithBytesMax(n int) Option { return func(o *options) { o.bytesMax = n } }

// WithFailWhenFull makes Publish fail with ErrFull when the outbox is full. By
// default it waits for room until its context ends.
func WithFailWhenFull() Option { return func(o *options) { o.fail = true } }

// WithMaxInFlight bounds the entries that are sent and have no outcome. They are in
// memory too. Default 4,096, at most 32,768.
func WithMaxInFlight(n int) Option { return func(o *options) { o.inFlight = n } }

// WithResults makes the Outbox call f with the result of each entry, once it is on
// disk, one at a time and in the order in which they came. After a crash the results
// of the last moments are not told again. While f is behind by resultsMax results no
// more entries are sent. f must not call Close.
func WithResults(f func(Result)) Option { return func(o *options) { o.results = f } }

// WithLogger logs to l what an operator wants to know: entries that are held, a
// session that was taken away, a cluster that cannot be reached. The default
// discards.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

func newOptions(opts []Option) (options, error) {
	o := options{
		entriesMax: entriesMaxDefault, bytesMax: bytesMaxDefault, inFlight: inFlightMaxDefault,
		logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range opts {
		f(&o)
	}
	switch {
	case (o.client == nil) == (o.url == ""):
		return o, fmt.Errorf("outbox: say where to send to, either WithClient or WithURL")
	case len(o.name) > wire.SessionNameBytesMax:
		return o, fmt.Errorf("outbox: session name of %d bytes, at most %d are accepted", len(o.name), wire.SessionNameBytesMax)
	case o.entriesMax < 1 || o.bytesMax < 1:
		return o, fmt.Errorf("outbox: room for %d entries and %d bytes: at least 1 of each is needed", o.entriesMax, o.bytesMax)
	case o.inFlight < 1 || o.inFlight > inFlightMost:
		return o, fmt.Errorf("outbox: max in flight %d: 1 to %d is accepted", o.inFlight, inFlightMost)
	}
	return o, nil
}
