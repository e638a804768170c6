package proc

// Limit is something of which the system gives a process only so much.
type Limit string

// The limits.
const (
	LimitFiles  Limit = "open files" // and connections
	LimitMemory Limit = "bytes of memory of its own"
)
