// Package transport carries frames between clients and nodes. It knows
// connections, requests and answers, and nothing of queues.
//
// # One port
//
// A Mux accepts on the node's port and tells by the first byte who knocks:
// clients ('O' of wire.Magic), raft peers ('R'), or strangers, who get a line
// of explanation where that is possible. What it hands out are plain
// listeners, so a Server can also serve any other listener.
//
// # Connections
//
// On both sides a connection has two goroutines. The reader reads frames and
// calls the owner (Handler on the server; done, OnPush and OnWindow on the
// client), which must not block. The writer owns all writing: whoever has
// something to send appends a frame to a buffer and wakes it, and it writes all
// that has gathered with one call. So frames leave in the order in which they
// were handed in, and many small ones cost one system call.
//
//	goroutine          owns                    ends when
//	Mux.Serve          accepting               Close
//	  classifier       one unclassified conn   first byte, timeout, Close
//	Server.Serve       accepting               Close
//	  reader           reading, handler calls  peer gone, Close, cut off
//	  writer           writing, keep-alive     the same
//	Conn reader        reading, callbacks      server gone, Close
//	Conn writer        writing, keep-alive     the same
//
// # Bounds
//
// Nothing here waits for a peer with memory in its hands. The server always
// reads, so that acks, pings and attachments never queue behind publishes; in
// return a client keeps count of what is unanswered (publish bytes up to
// Welcome.PublishWindow, other requests up to RequestsMax and
// RequestBytesMax) and is closed with CodeFlowControl if it does not. What a
// client does not read gathers up to OutputBytesMax and LaziesMax; past that,
// or when it takes nothing for stallTimeout, it is cut off. Pushes that are
// large are handed in as a function (PushLazy) and cost memory only when the
// socket can take them.
//
// All clients together have a bound as well, for what waits to be written and for
// frames of which a part has arrived (OutputBytesAll, InputBytesAll). Above it the
// slowest are cut off. That loses nothing: a publish is sent again under its sequence,
// and a consumer resumes.
// Buffers that connections keep for what they write next have the same bound as what
// waits; above it they are given back.
//
// # Ends
//
// Both sides ping when the other has been silent for PingInterval, and give up
// after twice that. A server that closes says why in an ErrorReply with
// correlation 0 and reads on for a moment, since a socket closed over unread
// bytes takes back what was written last.
//
// When a client's connection ends, each unanswered request is told whether any
// byte of it was written (ErrConnLost: it may have been received) or none
// (*UnsentError: it was not). The reason the connection ended for is only text
// in these errors: a code in a farewell is about the connection, and must not
// be taken for the answer to a request.
//
// # Trade-offs
//
// Replies are copied once, into the connection's buffer. Handing slices to
// writev would spare the copy, at the price of keeping every payload alive and
// of as many iovecs as frames; replies are small, and what is large is lazy
// anyway. Closing a client that breaks the window is harsh compared with not reading
// from it, but a server that stops reading also stops hearing acks, and the
// deadlock that follows looks like a slow network.
package transport
