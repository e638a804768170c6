//go:build !linux

package hosts

import (
	"errors"
	"net/netip"
)

var errLinux = errors.New("network namespaces need Linux")

// Possible says why there can be no hosts here.
func Possible() error { return errLinux }

// Net is a number of hosts and what is between them.
type Net struct{}

// New makes n hosts.
func New(int) (*Net, error) { return nil, errLinux }

// Address is where host i is, from 0.
func (*Net) Address(int) netip.Addr { return netip.Addr{} }

// Inside calls f in host i.
func (*Net) Inside(int, func() error) error { return errLinux }

// Set makes a rule for the packets from one host to another.
func (*Net) Set(_, _ int, _ Rule) {}

// Count is what was done to the packets from one host to another since Heal.
func (*Net) Count(_, _ int) Count { return Count{} }

// Total is the sum of Count over all links between hosts.
func (*Net) Total() Count { return Count{} }

// Heal takes back every rule.
func (*Net) Heal() {}

// Close removes everything.
func (*Net) Close() {}
