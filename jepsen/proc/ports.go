package proc

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

const (
	loopback  = "127.0.0.1"
	portTries = 2000
)

// place is where a node listens.
type place struct{ client, gossip string }

// The ports of nodes that have a host of their own: those of the documentation.
const (
	clientPort = 7450
	gossipPort = 7451
)

// places are the addresses of a cluster's nodes.
func places(cfg Config) (all []place, err error) {
	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	count := cfg.Nodes
	if cfg.Spare {
		count++
	}
	if cfg.Hosts != nil {
		for i := range count {
			host := cfg.Hosts.Address(i).String()
			all = append(all, place{at(host, clientPort), at(host, gossipPort)})
		}
		return all, nil
	}
	ports, err := freePorts(count)
	for _, p := range ports {
		all = append(all, place{at(loopback, p), at(loopback, p+1)})
	}
	return all, err
}

// freePorts finds n ports that nobody listens on, and whose next is free too.
// They lie below those that the system hands to outgoing connections, so that a
// node that was killed finds its port free when it returns.
func freePorts(n int) ([]int, error) {
	low, high := 10_000, ephemeralLow()
	if high-low < 1000 {
		low, high = 2000, 10_000
	}
	var ports []int
	used := map[int]bool{}
	for range portTries {
		p := low + rand.IntN((high-low)/2)*2
		if used[p] || !free(p) || !free(p+1) {
			continue
		}
		used[p] = true
		if ports = append(ports, p); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free pairs of ports between %d and %d", n, low, high)
}

func free(port int) bool {
	addr := net.JoinHostPort(loopback, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func ephemeralLow() int {
	const usual = 32768
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	if f := strings.Fields(string(b)); len(f) == 2 {
		if n, err := strconv.Atoi(f[0]); err == nil {
			return n
		}
	}
	return usual
}
