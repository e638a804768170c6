package member

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// AddressBook tells raft where a server is now: what gossip has said last, else
// what raft's configuration says.
type AddressBook struct {
	mu       sync.Mutex // guards what follows; not held while fallback runs
	entries  map[raft.ServerID]bookEntry
	fallback func(raft.ServerID) (raft.ServerAddress, bool)
}

type bookEntry struct {
	address string
	start   uint64
}

// bookEntriesMax bounds the book: gossip is a trusted source, but a table
// without a bound is none.
const bookEntriesMax = 4096

var _ raft.ServerAddressProvider = (*AddressBook)(nil)

// NewAddressBook returns an empty book.
func NewAddressBook() *AddressBook {
	return &AddressBook{entries: make(map[raft.ServerID]bookEntry)}
}

// Learn notes where a process of the server was started. Of two claims that of
// the newer process counts, whichever comes first.
func (b *AddressBook) Learn(id raft.ServerID, address string, start uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	if ok && e.start > start || !ok && len(b.entries) >= bookEntriesMax {
		return
	}
	b.entries[id] = bookEntry{address: address, start: start}
}

// SetFallback gives the look-up in raft's configuration.
func (b *AddressBook) SetFallback(f func(raft.ServerID) (raft.ServerAddress, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fallback = f
}

// Address is where the server is, host:port.
func (b *AddressBook) Address(id raft.ServerID) (string, bool) {
	b.mu.Lock()
	e, ok := b.entries[id]
	fallback := b.fallback
	b.mu.Unlock()
	if ok {
		return e.address, true
	}
	if fallback != nil {
		if a, ok := fallback(id); ok {
			return PlainAddress(a), true
		}
	}
	return "", false
}

// ServerAddr gives raft's network transport a DialedAddress.
func (b *AddressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	address, ok := b.Address(id)
	if !ok {
		return "", fmt.Errorf("no address of server %s is known", id)
	}
	return DialedAddress(id, address), nil
}
