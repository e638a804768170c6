package hosts

import "time"

// Rule is what happens to the packets of one directed link. The zero rule lets
// everything pass at once.
type Rule struct {
	Cut       bool
	Loss      int           // per mille of the packets that are lost
	Duplicate int           // per mille that arrive twice
	Corrupt   int           // per mille of those with data of TCP that arrive changed, with a checksum that is right
	Delay     time.Duration // of each packet
	Jitter    time.Duration // up to so much more, so packets overtake each other
}

// Count is what a link has done since the last Heal.
type Count struct {
	Passed, Lost, Repeated, Changed, Late uint64
}

func (c *Count) add(o Count) {
	c.Passed += o.Passed
	c.Lost += o.Lost
	c.Repeated += o.Repeated
	c.Changed += o.Changed
	c.Late += o.Late
}
