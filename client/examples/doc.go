// Package examples holds two programs that use onceq together, each small enough
// to read at once. In two terminals, with a cluster from "onceq dev" in a third:
//
//	export ONCEQ_URL=127.0.0.1:7450
//	go run onceq/client/examples/payments --db payments.db
//	printf 'order-1 ann 250\norder-2 bob 120\n' | go run onceq/client/examples/orders
//
// orders takes orders and publishes them; what it prints as stored is stored once.
// payments charges for each order once, also when it is killed in the middle and
// started again, when an order is entered twice, and when "onceq dev kill leader"
// takes the leader away under both.
package examples
