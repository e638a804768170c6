package proxy

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func TestPresence_TellsHowLongAConsumerHeardNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var told []string
		p := NewPresence(3*time.Second, func(label string, from, to time.Time) {
			told = append(told, fmt.Sprint(label, " ", from.Sub(start), " ", to.Sub(start)))
		})
		var id wire.ConsumerID
		id[0] = 1
		attach := func(l Link, n uint64) {
			a := pack.NewWriter(nil)
			wire.Attach{Consumer: id, N: n, Queue: "q", Label: "c1"}.Append(a)
			p.Frame(l, ToServer, wire.Frame{Op: wire.OpAttach, Corr: 7, Payload: a.Bytes()})
			r := pack.NewWriter(nil)
			wire.Attached{Status: wire.StatusOK}.Append(r)
			p.Frame(l, ToClient, wire.Frame{Op: wire.OpAttach, Reply: true, Corr: 7, Payload: r.Bytes()})
		}
		one, two := Link{1, "c", "n1"}, Link{2, "c", "n2"}
		attach(one, 1)
		time.Sleep(2 * time.Second)
		p.Frame(one, ToClient, wire.Frame{Op: wire.OpPing, Reply: true}) // 2 s: not worth telling
		time.Sleep(4 * time.Second)
		p.Frame(one, ToServer, wire.Frame{Op: wire.OpPing})              // it speaks, and hears nothing
		p.Frame(one, ToClient, wire.Frame{Op: wire.OpPing, Reply: true}) // 4 s
		p.Closed(one)
		time.Sleep(5 * time.Second)
		attach(two, 2) // 5 s
		p.Frame(one, ToClient, wire.Frame{Op: wire.OpPing, Reply: true})
		time.Sleep(time.Second)
		p.Closed(two)
		time.Sleep(9 * time.Second)
		p.Finish() // 10 s
		want := []string{"c1 2s 6s", "c1 6s 11s", "c1 11s 21s"}
		if !reflect.DeepEqual(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
