// Package client is the Go client of onceq.
package client
