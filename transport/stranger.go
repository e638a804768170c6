package transport

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// httpMethods are how HTTP requests start, as far as four bytes tell.
var httpMethods = []string{"GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "TRAC", "CONN", "PRI "}

func looksLikeHTTP(first string) bool {
	for _, m := range httpMethods {
		if first == m {
			return true
		}
	}
	return false
}

const httpText = "This is onceq's port for clients and raft peers, which do not speak HTTP. Use the onceq command, or the Go client.\n"

// answerStranger tells who speaks another protocol that it is at the wrong
// port, where its protocol is known and can carry a text. It returns what was
// recognised, for the log.
func answerStranger(nc net.Conn, first string) string {
	switch {
	case looksLikeHTTP(first):
		deadline := time.Now().Add(farewellTimeout)
		_ = nc.SetWriteDeadline(deadline)
		// Best effort: it is the peer's mistake.
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(httpText), httpText)
		linger(nc, nc)
		return "HTTP"
	case strings.HasPrefix(first, "\x16\x03"):
		return "TLS"
	}
	return fmt.Sprintf("bytes %q", first)
}

// linger lets the peer read what was written last: it ends our direction and
// reads on for a moment. A socket that is closed over unread bytes is reset, and
// the reset takes back what the peer has not read yet. The caller closes nc.
func linger(nc net.Conn, r io.Reader) {
	const discardBytesMax = 1 << 20
	closeWrite(nc)
	_ = nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, r, discardBytesMax)
}
