package client

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// EditState is what became of one message that was to be edited.
type EditState = wire.EditState

// What can become of it.
const (
	EditDone      = wire.EditDone
	EditNotHere   = wire.EditNotHere   // never stored, gone, or edited already
	EditLeased    = wire.EditLeased    // a consumer holds it: release it first, or wait
	EditUnchanged = wire.EditUnchanged // there is nothing to do in its state
	EditRefused   = wire.EditRefused   // where it was to go does not exist or is full
)

type appendable interface{ Append(w *pack.Writer) }

// UpdateQueue changes a queue's settings while it works. change gets the present
// ones; it is called again when somebody else changes the queue meanwhile.
func (a *Admin) UpdateQueue(ctx context.Context, name string, change func(s *QueueSettings)) (QueueInfo, error) {
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	for {
		info, err := a.Queue(ctx, name)
		if err != nil {
			return QueueInfo{}, err
		}
		settings := info.Settings
		change(&settings)
		if settings == info.Settings {
			return info, nil
		}
		incarnation, group := a.c.topo.identity()
		request := wire.QueueUpdate{Incarnation: incarnation, Group: group, Number: info.Number, Revision: info.Revision, Settings: settings}
		_, _ = rand.Read(request.Nonce[:]) // never fails
		r, err := a.queue(ctx, wire.OpQueueUpdate, request, name)
		if !errors.Is(err, ErrRevision) {
			return r.Info, err
		}
		if !pause(ctx, tries.next()) {
			return r.Info, err
		}
	}
}

// PauseQueue stops handing out messages. What is leased stays leased; publishes
// are taken.
func (a *Admin) PauseQueue(ctx context.Context, name string) (QueueInfo, error) {
	return a.pause(ctx, name, true)
}

// ResumeQueue undoes PauseQueue.
func (a *Admin) ResumeQueue(ctx context.Context, name string) (QueueInfo, error) {
	return a.pause(ctx, name, false)
}

func (a *Admin) pause(ctx context.Context, name string, paused bool) (QueueInfo, error) {
	info, err := a.Queue(ctx, name)
	if err != nil {
		return QueueInfo{}, err
	}
	incarnation, group := a.c.topo.identity()
	r, err := a.queue(ctx, wire.OpQueuePause, wire.QueuePause{Incarnation: incarnation, Group: group, Number: info.Number, Paused: paused}, name)
	return r.Info, err
}

// DeleteMessages removes messages for good. All edits answer for each place, in
// order, and may be repeated: what was done before is EditNotHere or
// EditUnchanged then, also when only the first answer was lost.
func (a *Admin) DeleteMessages(ctx context.Context, queue string, places ...Place) ([]EditState, error) {
	return a.edit(ctx, queue, wire.EditDelete, "", places)
}

// RequeueMessages makes parked and delayed messages ready now.
func (a *Admin) RequeueMessages(ctx context.Context, queue string, places ...Place) ([]EditState, error) {
	return a.edit(ctx, queue, wire.EditRequeue, "", places)
}

// ReleaseMessages takes messages from the consumers that hold them; they are ready
// at once.
func (a *Admin) ReleaseMessages(ctx context.Context, queue string, places ...Place) ([]EditState, error) {
	return a.edit(ctx, queue, wire.EditRelease, "", places)
}

// MoveMessages moves messages to the end of target or, with "", each dead letter to
// the queue that it came from.
func (a *Admin) MoveMessages(ctx context.Context, queue, target string, places ...Place) ([]EditState, error) {
	return a.edit(ctx, queue, wire.EditMove, target, places)
}

func (a *Admin) edit(ctx context.Context, queue string, verb wire.EditVerb, target string, places []Place) ([]EditState, error) {
	info, err := a.Queue(ctx, queue)
	if err != nil {
		return nil, err
	}
	incarnation, group := a.c.topo.identity()
	var states []EditState
	for len(places) > 0 {
		n := min(len(places), wire.EditPlacesMax)
		// By number: a queue that is created again under the name is another one.
		request := wire.Edit{Incarnation: incarnation, Group: group, Number: info.Number, Verb: verb, Target: target, Places: places[:n]}
		payload, err := a.c.ask(ctx, wire.OpEdit, request.Append)
		if err != nil {
			return states, err
		}
		r, err := wire.DecodeEditReply(payload)
		switch {
		case err != nil:
			return states, err
		case r.Status == wire.StatusNoQueue && target != "":
			return states, statusError(r.Status, "queue "+queue+" or "+target)
		case r.Status != wire.StatusOK:
			return states, statusError(r.Status, "queue "+queue)
		case len(r.States) != n:
			return states, newError(wire.CodeInternal, "an answer for %d messages, asked for %d", len(r.States), n)
		}
		states = append(states, r.States...)
		places = places[n:]
	}
	return states, nil
}
