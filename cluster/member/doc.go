// Package member is how a node knows itself and finds the others: the identity
// in its data directory, the streams between nodes, the forming of a cluster,
// joining one, and gossip. It knows raft's transport types and nothing of raft's
// state; what runs on top of it is the caller's.
//
// # What is authoritative
//
// The identity file is, for who this node is and to which cluster it belongs.
// Every change is on disk before anybody can see it. raft's configuration is,
// for who is a member. Gossip is never: it says where nodes are and whether they
// seem to be alive, and being wrong there costs time and nothing else.
//
// A server id is the node's name and a random suffix from the identity file. A
// node whose directory was wiped has forgotten what it promised, so it must not
// be taken for what it was: it comes back under another id and joins as a new
// member, and the group removes the old one, which NameOf finds.
//
// # The order of things
//
//	OpenDir          locks the directory; before anything else is in there
//	ListenGossip     binds the gossip port, so that its address can be told
//	NewStreams       accepts and opens streams between nodes
//	Form             blocks until the node belongs to a cluster
//	  raft.BootstrapCluster and Dir.MarkBootstrapped, if Formed.Bootstrap
//	AddressBook, GuardTransport, raft.NewRaft, SetOnJoin, SetAllow
//	StartGossip
//
// and back: Gossip.Leave (in order only), raft, Gossip.Close, Streams.Close,
// Dir.Close.
//
// # Forming a cluster
//
// Every node asks the nodes it knows of, round after round, where they stand:
// those given with --join, those that asked it, and those they name. When as
// many as expected are there and none has state, the one with the lowest id
// mints a cluster id with the list of members, durably, and asks the others to
// accept exactly that. Each accepts durably, and refuses every other id from
// then on. When all have, the minter commits, durably, and it alone bootstraps
// raft. Stage has the picture, bootstrap.go the decisions and why no
// interleaving of them makes two clusters. A node that sees a formed cluster
// asks to join that instead, whatever it was told to expect.
//
// A node does not form a cluster before every address of its --join list has
// answered. So wiped nodes do not form a second cluster while those that hold
// the first are down: give every node the addresses of all.
//
// # The secret
//
// Cluster secret, 32 bytes. It authenticates every raft stream, both ways, and
// encrypts gossip from the first packet on: gossip starts when the secret is
// known, and not before. There are two ways for a node to get it.
//
// With --cluster-key FILE on every node the key in the file is the secret. It
// never travels. Asking, proposing and joining need it as well, so who does not
// have it learns nothing and changes nothing.
//
// Without a key the minter makes the secret up and sends it with its proposal;
// a member sends it with the answer to a join. That is for one machine: by
// default such requests are accepted from loopback addresses only. Opened to a
// network (EnrollOpen), the secret still keeps out garbage, strangers by
// accident and nodes of other clusters, but not somebody who means harm, for
// whoever reaches the port can join and read what passes. The operator has to
// say that the network is safe, or give a key.
//
// # Streams
//
// See hello.go for the handshake and record.go for the checksums. A stream to a
// member names the server id that has to be at the other end (DialedAddress):
// ports pass from one node to another, and an entry acknowledged by the wrong
// node would be counted for a majority that does not have it.
//
// # Trade-offs
//
// Finding each other over streams or over gossip? Gossip could carry the
// bootstrap state, but then it has to start without a key, and turning the key
// on parts those who have it from those who do not yet, at the worst moment.
// With streams there is one address to tell a new node, the one that clients use
// too, and gossip never sends a byte in clear. The cost is a second way to find
// nodes; it is also what leads gossip to a node that came back on other ports.
//
// A gossip name for each start of a process, or the node's name? See
// gossipName.
//
// Waiting for all addresses of --join makes a first start wait for every one of
// them, also when the expected number is there already. A cluster is formed once
// and a second one loses data, so waiting is right.
//
// CRC32C in records finds damage, not forgery: after the handshake somebody on
// the path could change a stream. TLS will close that; until then the same
// operator who has to call the network safe for clients has to for nodes.
package member
