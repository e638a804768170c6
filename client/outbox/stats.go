package outbox

// Stats are what is in the outbox, and counters since Open.
type Stats struct {
	Waiting, Sent, Held int // entries now
	Bytes               int // of all entries now

	Published  uint64 // taken
	Stored     uint64 // left as stored
	Duplicates uint64 // of those, answered from the record of an earlier copy
	Discarded  uint64
	Commits    uint64 // transactions: how often the disk was waited for, twice each

	// Session is what entries are sent under, such as "s1.42"; "" while there is none.
	Session string
	// Trouble is why nothing can be sent at the moment, nil when something can.
	Trouble error
}
