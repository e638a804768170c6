package proxy

import "math/rand/v2"

const (
	// lengthOneIn is how many garbled frames there are for one whose length is hit:
	// chance hits it too seldom, and it says where all later ones begin.
	lengthOneIn = 4
	lengthBytes = 4 // at the beginning of a frame
)

// Garble flips a bit in about one of so many frames between clients and a node, as a
// bad cable or memory on the way would, 0 for none.
func (n *Net) Garble(node string, oneIn int) {
	n.change(node, func(r *rules) { r.garble = oneIn })
}

// Garbled is how many frames were garbled since the net was made.
func (n *Net) Garbled() int { return int(n.garbled.Load()) }

// garble flips a bit of a frame, if it is its turn.
func (l *link) garble(frame []byte) {
	l.n.mu.Lock()
	oneIn := l.n.nodes[l.Node].garble
	l.n.mu.Unlock()
	if oneIn == 0 || rand.IntN(oneIn) != 0 {
		return
	}
	l.n.garbled.Add(1)
	at := rand.IntN(len(frame))
	if rand.IntN(lengthOneIn) == 0 {
		at = rand.IntN(lengthBytes)
	}
	frame[at] ^= 1 << rand.IntN(8)
}
