// Package proxy stands between clients and nodes and breaks connections where it
// hurts. It understands frames, so it can lose exactly the reply to a publish, or
// let a settle pass and its answer not.
//
// A client reaches a node through Net.Dialer, which takes the node's own address:
// so the addresses that nodes tell work unchanged. TCP is kept honest: bytes
// arrive in order or not at all. A reply that is lost takes its connection with
// it, as in life; a link that is held stalls and goes on when it is released.
//
// Goroutines: two for each direction of a connection, a reader and a writer with
// a bounded queue between them. They end together. Close waits for all.
package proxy
