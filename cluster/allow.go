package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
)

// errStranger refuses a server that has the cluster's secret and is no member.
var errStranger = errors.New("not a member")

// allow refuses raft's streams and messages from servers that are not in the
// configuration: a removed node that still runs would ask for votes, and with a
// message of a higher term end a leadership that is well.
//
// That holds only while this node has a leader, itself or another that it hears
// from. Without one its configuration may be older than the cluster: it was
// down while members came, and one of those leads. Who refused a leader for not
// knowing it would never learn of it. A node that joins opens no raft stream
// before it is in the configuration, and takes every member's before it has one.
func allow(r *raft.Raft, id raft.ServerID) error {
	if r == nil {
		return nil // not running yet
	}
	servers := r.GetConfiguration().Configuration().Servers
	for _, v := range servers {
		if v.ID == id {
			return nil
		}
	}
	_, leader := r.LeaderWithID()
	if len(servers) == 0 || leader == "" || leader == id {
		return nil
	}
	return fmt.Errorf("%w: server %s is not in the cluster's configuration, and %s leads", errStranger, id, member.NameOf(leader))
}
