package fsm

// BodyStore keeps message bodies for the machine, which only ever writes and
// deletes them: Apply reads no body. Calls come from the one goroutine that
// applies; a body may be put twice under one place with the same bytes, when
// the log is replayed.
type BodyStore interface {
	// Put keeps an encoded message. The slice may alias the entry and must not
	// be changed.
	Put(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte)
	// Delete forgets one body. Unknown places are fine.
	Delete(queue uint64, lane uint8, offset uint64)
	// DeleteRange forgets from <= offset < to.
	DeleteRange(queue uint64, lane uint8, from, to uint64)
	// Move keeps a body under another place instead, without a word of its bytes:
	// the machine moves messages between queues and reads none.
	Move(queue uint64, lane uint8, offset uint64, toQueue uint64, toLane uint8, toOffset uint64)
	// Reset forgets everything, before a Restore.
	Reset()
	// Freeze returns a view of what is stored now. Until its Release, what is
	// deleted stays in the view.
	Freeze() FrozenBodies
}

// FrozenBodies is what was stored at a moment. Each may run beside Apply.
type FrozenBodies interface {
	Each(func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error) error
	Release()
}
