package transport

import (
	"time"

	"onceq/transport/wire"
)

// Limits of a connection, kept by both sides.
const (
	// PublishWindow is the default of Welcome.PublishWindow.
	PublishWindow = wire.PublishWindow
	// RequestsMax bounds the unanswered requests of a connection.
	RequestsMax = wire.RequestsMax
	// RequestBytesMax bounds the payload bytes of those that are no publishes.
	RequestBytesMax = wire.RequestBytesMax
)

// Limits of the server.
const (
	// ConnsMax is the default of ServerConfig.ConnsMax.
	ConnsMax = 10_000
	// OutputBytesMax bounds the bytes that wait to be written to a client. Two
	// of the largest frames fit.
	OutputBytesMax = 16 << 20
	// LaziesMax bounds the lazy pushes that wait to be encoded for a client.
	LaziesMax = 16_384

	// refusalsMax bounds the connections over ConnsMax that are being told so.
	refusalsMax = 64
	// unclassifiedMax bounds the connections of a Mux that have not shown
	// their first byte. The oldest one makes room.
	unclassifiedMax = 1024
)

const (
	pingInterval = 5 * time.Second
	// silenceFactor times the ping interval without a byte is a dead peer.
	silenceFactor = 2
	// stallTimeout is how long a peer may take nothing of what is written.
	stallTimeout = 10 * time.Second
	// stallLook is how often a write that does not end is looked at.
	stallLook = time.Second
	// helloTimeout bounds the handshake.
	helloTimeout = 10 * time.Second
	// firstByteTimeout bounds how long a Mux waits to learn who knocks.
	firstByteTimeout = 5 * time.Second
	// farewellTimeout bounds writing the rest and the reason when closing.
	farewellTimeout = time.Second
	// lingerTimeout bounds how long a closing side waits for the other to have
	// read the reason.
	lingerTimeout = time.Second

	readBufferBytes = 16 << 10
	// lazyWriteBytes is when gathered pushes are written.
	lazyWriteBytes = 256 << 10
)

// worthKeeping says whether an output buffer may be used again: it is small, or
// what was in it this time needed a good part of it. So one large answer does not
// stay in memory for the small ones after it. (An idle connection keeps
// nothing.)
func worthKeeping(b []byte) bool {
	const small = 1 << 20
	return cap(b) <= small || len(b) >= cap(b)/4
}
