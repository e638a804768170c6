// Package nemesis breaks a cluster and heals it again. Each fault is one function
// that breaks something, waits, and puts it back; it says whether its effect was
// observed, since a fault that did nothing proves nothing. Which fault comes
// when is drawn from the seed of the run.
//
// # What a fault has to say of itself
//
// Needs: what a run must have for it. Where that is missing the fault is left out,
// and the run says so. Away: how many nodes the others do without meanwhile; in a
// mix the sum never exceeds a minority, unless a fault comes alone. Field: what
// it works on; two of one field never come together, since one would heal what the
// other broke. The field "disk" is about what nodes keep: whatever may cost a node
// its data is in it, so that no two nodes lose theirs at a time, and such a fault
// begins only when every node votes and has what the leader has.
//
// # Nodes that must end
//
// A node whose disk failed, whose power was cut or whose files were damaged ends by
// itself, and has to. Such faults say so before (proc.Cluster.Expect), and the
// history has gave-up in place of crash; a node that goes on is went-on.
//
// # Trade-offs
//
// A fault is healed by itself also when the time of the run is over, however long
// that takes, within a bound: a run that stopped in between would call a node lost
// that was only on its way. And a fault that had no effect is tried again, except
// in a mix, whose plan is fixed.
package nemesis
