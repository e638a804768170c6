package client

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
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
	EditChanged   = wire.EditChanged   // handed out, or come back, since it was looked at
	EditCapped    = wire.EditCapped    // it would need a record, and there are as many as may be
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
		if settings.DeadLetter == name {
			// A request for a change goes by number, so who checks it does not know the name.
			return info, newError(wire.CodeBadSettings, "queue %s cannot be its own dead-letter queue", name)
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
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	for {
		info, err := a.Queue(ctx, name)
		if err != nil || info.Paused == paused {
			return info, err
		}
		incarnation, group := a.c.topo.identity()
		request := wire.QueuePause{Incarnation: incarnation, Group: group, Number: info.Number, Revision: info.Revision, Paused: paused}
		_, _ = rand.Read(request.Nonce[:]) // never fails
		r, err := a.queue(ctx, wire.OpQueuePause, request, name)
		if !errors.Is(err, ErrRevision) || !pause(ctx, tries.next()) {
			return r.Info, err
		}
	}
}

// DeleteMessages removes messages for good. All edits answer for each place, in
// order. A place names the message as it was looked at, see MessageInfo.Place: one
// that was handed out or has come back since is EditChanged and left alone. An edit
// whose answer was lost is asked for again and gets the same answer, or, when there
// was another edit of the queue in between, what is there by then.
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
// the queue that it came from. There it has the priority that it had, in any other queue it
// has none. target is another queue than queue, else it is ErrBadOptions.
func (a *Admin) MoveMessages(ctx context.Context, queue, target string, places ...Place) ([]EditState, error) {
	if target == queue && queue != "" {
		return nil, newError(wire.CodeBadOptions, "move from %s to %s: that is the queue they are in: name another", queue, target)
	}
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
		_, _ = rand.Read(request.Nonce[:]) // never fails
		payload, unknown, err := a.c.try(ctx, wire.OpEdit, request.Append)
		if err != nil {
			return states, err
		}
		r, err := wire.DecodeEditReply(payload)
		switch {
		case err != nil:
			return states, err
		case r.Status == wire.StatusNoQueue:
			return states, statusError(r.Status, "queue "+a.missing(ctx, queue, target))
		case r.Status != wire.StatusOK:
			return states, statusError(r.Status, "queue "+queue)
		case len(r.States) != n:
			return states, newError(wire.CodeInternal, "an answer for %d messages, asked for %d", len(r.States), n)
		}
		states = append(states, r.States...)
		places = places[n:]
		if unknown && slices.Contains(r.States, wire.EditRefused) {
			return states, stillOpen(newError(wire.CodeQueueFull, "where a message was to go does not exist or is full"))
		}
	}
	return states, nil
}
