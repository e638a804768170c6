// Package onceqtest runs clusters inside the tests of programs that use onceq:
// real nodes in this process, on free ports of loopback, with their data in the
// test's temporary directory. Nothing is left when the test ends.
//
//	func TestOrders(t *testing.T) {
//		cluster := onceqtest.Start(t, 3)
//		c := cluster.Client()
//		...
//		cluster.KillLeader() // as kill -9 would
//		...
//	}
//
// A cluster of one starts fastest and will do for most tests. One of three goes on
// without any one node, so it can show what a program does while the leader
// changes; that takes a second or two.
//
// The verbs return when their act is done, not when the cluster has dealt with it:
// after KillLeader there is no leader for a moment, which is what the test is
// about. WaitLeader waits for the next. What must happen and does not within a minute
// fails the test.
//
// The verbs:
//
//	KillLeader, Kill, Restart    nodes end as by kill -9, and come back with their disks
//	Partition, Heal              nodes do not reach each other; clients reach all of them
//	Advance                      the cluster's time goes forward
//	Leader, WaitLeader           who leads, by number
//	URL, Client                  how the program under test gets at the cluster
//
// Nodes keep real time; Advance makes the time of leases, delays and sessions pass
// at once, so that a test of what happens after an hour takes a moment.
package onceqtest
