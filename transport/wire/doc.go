// Package wire holds the words that client and server share: frames, opcodes,
// message types, statuses and error codes, and how each is written.
//
// A connection of a client starts with the four bytes of Magic and then
// carries frames in both directions (frame.go). A frame has an opcode, a
// correlation that matches a reply to its request, and a payload. A payload is one
// msgpack array, see messages.go; text forms of ids are in text.go, and what
// a person should know about an error code is in explain.go.
//
// Every decoder here takes bytes that a stranger may have made. It checks each
// length against the bytes that remain and against a named limit (limits.go)
// before it allocates, allocates at most a small multiple of the bytes it was
// given, and answers pack.ErrMalformed for what it does not accept. Byte slices
// in a decoded message are views into the payload.
//
// What is checked here is the form. Whether a request makes sense (a name's
// letters, a floor above a sequence) is for the machine to judge, so that
// there is one judge.
package wire
