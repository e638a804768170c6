// Package hosts gives each node a machine of its own, as far as the network goes:
// a network namespace with one address. A switch in this process carries the
// packets between them, and can lose, delay, repeat, reorder and change them on
// each directed link: a partition is a set of links that carry nothing.
//
//	n1 (namespace)      n2 (namespace)      harness (our namespace)
//	198.18.N.11         198.18.N.12         198.18.N.1
//	     tun                 tun                 tun onceqjN
//	      \___________________|___________________/
//	                 Net, one reader a device
//
// # Nothing is left behind
//
// Devices and namespaces are held by descriptors of this process alone: they have
// no names that outlive it, and the kernel removes them when it ends, kill -9
// included. The kernel also gives out N, the number of our own device, so runs
// side by side never have the same addresses.
//
// # Trade-offs
//
// Bridges, nftables and netem would carry packets in the kernel, faster; but netem
// is not in every kernel, their rules and names stay behind when a run is killed,
// and a rule that matches nothing looks like one that works. The switch counts
// what it does to each link. It costs two system calls a packet, in the process
// that also runs the clients.
//
// Goroutines: one reader for each device, and one that holds the packets that
// are late. Close ends them and waits.
package hosts
