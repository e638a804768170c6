// Package transporttest is a network in memory, for tests.
//
// It behaves as TCP does where that matters to what is built on it: streams in
// order with a bounded buffer, so that a writer blocks when nobody reads;
// deadlines; half-close; a dial to where nobody listens is refused, a dial
// over a link that is cut hangs. A link that is cut loses nothing that was
// written: it stalls, and goes on when healed, until a side gives up or
// Reset breaks the connection. What had arrived before the cut can be read.
//
// Everything waits in ways that testing/synctest understands, so that nodes and
// clients run in virtual time when the Network is made inside the bubble.
//
// A host is the part of an address before its colon.
package transporttest
