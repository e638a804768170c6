package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"onceq/cluster/member"
	"onceq/fsm"
	"onceq/transport/wire"
)

// raiseRetry is how soon the members are asked for their versions again, when one
// has not answered or is older.
const raiseRetry = 2 * time.Second

// machineVersion is what this node knows of the versions of the queue machine.
type machineVersion struct {
	supports uint32        // the newest that this build knows
	active   atomic.Uint32 // the machine's, as of what is applied here
	// older names a member that keeps the leader from raising the version, and
	// silent one that has not said what it can apply.
	older, silent atomic.Pointer[string]
}

func newMachineVersion(supports uint32, m *fsm.Machine) *machineVersion {
	v := &machineVersion{supports: supports}
	v.active.Store(m.Version())
	return v
}

// refuses says why a kind of command is not proposed, nil if it is: a machine that
// does not know it would refuse it as well, after a way through the log.
func (v *machineVersion) refuses(k fsm.Kind) *wire.ErrorReply {
	needs, active := fsm.Since(k), v.active.Load()
	if k == fsm.KindRestoreBegin && v.older.Load() == nil {
		needs = v.supports // a backup may be of that version: not before the raise that is coming
	}
	if needs <= active {
		return nil
	}
	e := &wire.ErrorReply{Code: wire.CodeUnsupported, Text: fmt.Sprintf("this request needs machine version %d, and the cluster has %d", needs, active)}
	if older := v.older.Load(); older != nil {
		e.Text += fmt.Sprintf(": node %s runs an older build; upgrade it, and the version rises by itself", *older)
	} else {
		e.Retriable = needs <= v.supports
		if silent := v.silent.Load(); silent != nil {
			e.Text += fmt.Sprintf(": node %s has not said what it can apply; start it, or remove it, and the version rises by itself", *silent)
		}
	}
	return e
}

// takes refuses a node that cannot apply what this cluster's log holds.
func (v *machineVersion) takes(req member.JoinRequest) error {
	if active := v.active.Load(); req.Machine < active {
		return fmt.Errorf("the cluster has machine version %d, and node %s knows only up to %d: start it with a newer build", active, req.Peer.Name, req.Machine)
	}
	return nil
}

// raise raises the machine's version when every member knows a newer one, and says
// whether that is still to be done. No member comes or goes meanwhile.
func (s *steward) raise(ctx context.Context) (again bool) {
	v := s.g.version
	if v.active.Load() >= v.supports {
		v.older.Store(nil)
		v.silent.Store(nil)
		return false
	}
	if s.g.mono() < s.raiseAt {
		return true
	}
	release, ok := s.maybeAcquire()
	if !ok {
		return true
	}
	defer release()
	s.raiseAt = s.g.mono() + raiseRetry
	lowest, older := v.supports, (*string)(nil)
	for _, m := range s.g.raft.GetConfiguration().Configuration().Servers {
		if m.ID == s.g.id {
			continue
		}
		status, err := s.ask(ctx, s.addressOf(m))
		if err != nil || status.ServerID != string(m.ID) {
			// Nobody knows what it can apply.
			s.g.log.Debug("ask for the machine version", "server", m.ID, "error", err)
			name := member.NameOf(m.ID)
			v.silent.Store(&name)
			s.raiseAt = s.g.mono() + stewardRetry
			return true
		}
		if status.MachineSupports < lowest {
			name := member.NameOf(m.ID)
			lowest, older = status.MachineSupports, &name
		}
	}
	v.older.Store(older)
	v.silent.Store(nil)
	if lowest > v.active.Load() {
		s.proposeRaise(ctx, lowest)
	}
	return v.active.Load() < v.supports
}

func (s *steward) proposeRaise(ctx context.Context, version uint32) {
	done := make(chan outcome, 1)
	s.g.propose(fsm.KindRaise, fsm.RaisePayload(version), func(o outcome) { done <- o })
	select {
	case o := <-done:
		if o.Err == nil {
			s.g.log.Info("machine version raised", "version", version)
		}
	case <-ctx.Done():
	}
}
