package devcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"

	"onceq/cmd/onceq/internal/exit"
)

// Where local nodes listen: node i of a cluster at the default ports has 7450 +
// 100*i for clients and raft, and the one above for gossip.
const (
	loopback    = "127.0.0.1"
	defaultPort = 7450
	portStep    = 100
)

// Ports are those of one node.
type Ports struct {
	Client int `json:"client"`
	Gossip int `json:"gossip"`
}

// from lays out n nodes from a base port.
func from(base, n int) []Ports {
	ps := make([]Ports, n)
	for i := range ps {
		ps[i] = Ports{base + i*portStep, base + i*portStep + 1}
	}
	return ps
}

// choosePorts chooses ports for n nodes: from base when the user named it, and
// then one that is taken is an error; else the default ones, or free ones when
// a default is taken.
func choosePorts(base, n int, anyPorts bool) ([]Ports, error) {
	if base != 0 {
		ps := from(base, n)
		return ps, takenError(ps)
	}
	if ps := from(defaultPort, n); !anyPorts && takenError(ps) == nil {
		return ps, nil
	}
	return freePorts(n)
}

// takenError names the first port that is taken.
func takenError(ps []Ports) error {
	for _, p := range ps {
		for _, port := range []int{p.Client, p.Gossip} {
			if port < 1 || port > 65535 {
				return exit.Errorf(exit.Usage, "port %d is out of range", port)
			}
			if err := tryPort(port, port == p.Gossip); err != nil {
				return &exit.Error{Code: exit.Conflict,
					Err:  fmt.Errorf("port %d is taken: %w", port, err),
					Hint: "name another base with --port, or end what listens there"}
			}
		}
	}
	return nil
}

// tryPort listens on a port for a moment.
func tryPort(port int, udp bool) error {
	addr := net.JoinHostPort(loopback, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	l.Close()
	if !udp {
		return nil
	}
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// portTries bounds the search for free ports.
const portTries = 2000

// freePorts finds ports that nobody listens on. They lie below those that the
// system hands to outgoing connections, so that a node that was killed finds
// its port free when it returns; the start is random, so that two clusters that
// start at once hardly ever meet (and who loses the race tries again).
func freePorts(n int) ([]Ports, error) {
	low, high := 10_000, ephemeralLow()
	if high-low < 1000 {
		low, high = 2000, 10_000
	}
	var ps []Ports
	used := map[int]bool{}
	for range portTries {
		p := low + rand.IntN((high-low)/2)*2
		if used[p] || tryPort(p, false) != nil || tryPort(p+1, true) != nil {
			continue
		}
		used[p] = true
		if ps = append(ps, Ports{p, p + 1}); len(ps) == n {
			return ps, nil
		}
	}
	return nil, exit.Errorf(exit.Failure, "no %d free pairs of ports found between %d and %d", n, low, high)
}

// ephemeralLow is the lowest port that the system gives to outgoing connections.
func ephemeralLow() int {
	const usual = 32768
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return usual
	}
	low, err := strconv.Atoi(f[0])
	if err != nil {
		return usual
	}
	return low
}
