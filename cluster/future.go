package cluster

import (
	"reflect"

	"github.com/hashicorp/raft"
)

// bound makes f.Error return raft.ErrRaftShutdown once ended is closed.
//
// The library never answers some futures at a shutdown: what sits in the
// channel to its FSM goroutine, in verifyCh, or in applyCh when that is
// buffered. Whoever waits for one would wait for ever. Every future of the
// library waits for its ShutdownCh as well, an exported field that the library
// sets for a few kinds only; setting it here, before the first call of Error,
// is safe because nothing but Error reads it. A test notices when the field
// goes away.
func bound[F raft.Future](f F, ended chan struct{}) F {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return f // answered at once, such as the library's errorFuture
	}
	field := v.Elem().FieldByName("ShutdownCh")
	if field.IsValid() && field.CanSet() && field.IsNil() {
		field.Set(reflect.ValueOf(ended))
	}
	return f
}
