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
	// SilentMax is the default of MuxConfig.SilentMax.
	SilentMax = 1024
	// OutputBytesMax bounds the bytes that wait to be written to a client. Two
	// of the largest frames fit.
	OutputBytesMax = 16 << 20
	// OutputBytesAll is the default of ServerConfig.OutputBytes.
	OutputBytesAll = 256 << 20
	// InputBytesAll is the default of ServerConfig.InputBytes. Frames that wire.FrameReader
	// does not tell of come on top: ConnsMax times 16 KiB are 160 MiB.
	InputBytesAll = 256 << 20
	// LaziesMax bounds the lazy pushes that wait to be encoded for a client.
	LaziesMax = 16_384

	// refusalsMax bounds the connections over ConnsMax that are being told so.
	refusalsMax = 64
)

const (
	pingInterval = 5 * time.Second
	// silenceFactor times the ping interval without a byte is a dead peer.
	silenceFactor = 2
	// stallTimeout is how long a peer may take nothing of what is written.
	stallTimeout = 10 * time.Second
	// easeLeast is how much a client has that is cut off so that others have room, if there
	// is one.
	easeLeast = 64 << 10
	// A client that sends a frame at less than frameRate, in bytes a second, is behind after
	// frameGrace. It is cut off so that others have room.
	frameGrace = 2 * time.Second
	frameRate  = 64 << 10
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

// worthKeeping says whether an output buffer may be used again: it is not very
// large, or what was in it this time needed a good part of it. So one very large
// answer does not stay in memory for the small ones after it.
func worthKeeping(b []byte) bool {
	const large = 1 << 20
	return cap(b) <= large || len(b) >= cap(b)/4
}

// needed says whether an output buffer is worth its memory to a connection that had at
// most so much in it since this was last asked. It is asked at each tick and not
// after each write, since large pieces and small ones follow each other on a busy
// connection, and each change would be paid with a new buffer.
func needed(b []byte, most int) bool {
	const small = 64 << 10
	return most > 0 && (cap(b) <= small || most >= cap(b)/4)
}
