package control

import (
	"context"
	"errors"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/store"
)

// The kinds of operations.
const (
	pausing = "pause"

	pausingFiles = "pause without memory"

	resuming = "resume"
	killing  = "kill"
)

// shown returns a sandbox that its owner may know of.
func (c *Control) shown(ctx context.Context, op string, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error) {
	if err := c.ready(ctx); err != nil {
		return cove.Sandbox{}, err
	}
	sb, err := c.cfg.Store.Sandbox(ctx, team, id)
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, id, err)
	}
	if sb.State == cove.Starting || sb.State == cove.Killing {
		return cove.Sandbox{}, unknown(op, id, nil)
	}
	return sb, nil
}

// PauseSandbox saves a sandbox, memory and disk or only its disk, and ends its
// processes. When
// it returns, the snapshot is durable. On an error the sandbox runs on. Several
// callers may ask at once and get the same answer. Conflict: it is paused.
func (c *Control) PauseSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, filesOnly bool) error {
	const op = "control.PauseSandbox"
	for {
		sb, err := c.shown(ctx, op, team, id)
		if err != nil {
			return err
		}
		if sb.State == cove.Paused {
			return cove.E(cove.Conflict, op, nil, "Error pausing sandbox - sandbox '%s' is already paused", id)
		}
		kind := pausing
		if filesOnly {
			kind = pausingFiles
		}
		_, again, err := c.operate(ctx, id, kind, func(ctx context.Context) (cove.Sandbox, error) { return c.pause(ctx, id, filesOnly) })
		if !again {
			return err
		}
	}
}

// pause is the operation: save, flip the record, and only then end the
// processes.
func (c *Control) pause(ctx context.Context, sandbox cove.SandboxID, filesOnly bool) (cove.Sandbox, error) {
	const op = "control.pause"
	sb, err := c.fresh(ctx, sandbox, cove.Running)
	if err != nil {
		return cove.Sandbox{}, err
	}
	snapshot, none := id.Snapshot(), cove.SnapshotID("")
	// The record names the snapshot before it exists: should the host go down
	// once it is complete, it is found.
	sb, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Pausing, Snapshot: &snapshot, FilesOnly: filesOnly})
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, sb.ID, err)
	}
	if err := c.cfg.Node.Pause(ctx, sb.ID, sb.Execution, snapshot, filesOnly); err != nil {
		_, terr := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Running, Snapshot: &none})
		if cove.Is(terr, cove.NotFound) { // it ended by itself
			terr = nil
		}
		return cove.Sandbox{}, errors.Join(err, terr)
	}
	paused, err := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Paused, EndAt: c.cfg.Now()})
	if err != nil {
		_, terr := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Running, Snapshot: &none})
		return cove.Sandbox{}, errors.Join(err, c.cfg.Node.Thaw(ctx, sb.ID, sb.Execution), c.cfg.Node.DeleteSnapshot(ctx, snapshot), terr)
	}
	if err := c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
		// It is paused all the same; what still stands goes with the next start.
		c.cfg.Log.Error("a paused sandbox's processes could not be ended", "sandbox", sb.ID, "err", err)
	}
	return paused, nil
}

// ConnectSandbox makes sure that a sandbox runs for at least d from now: one
// that runs lives longer, one that is paused is resumed.
func (c *Control) ConnectSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) (sb cove.Sandbox, resumed bool, err error) {
	const op = "control.ConnectSandbox"
	for ctx.Err() == nil {
		if sb, err = c.shown(ctx, op, team, id); err != nil {
			return cove.Sandbox{}, false, err
		}
		if sb.State == cove.Running {
			sb, err = c.ExtendSandbox(ctx, team, id, d)
			if cove.Is(err, cove.Conflict) { // it stopped running just now
				continue
			}
			return sb, false, err
		}
		if err := c.checkTimeout(op, d, 0); err != nil {
			return cove.Sandbox{}, false, err
		}
		resumedNow, again, err := c.operate(ctx, id, resuming, func(ctx context.Context) (cove.Sandbox, error) { return c.resume(ctx, id, d) })
		if again {
			continue
		}
		return resumedNow, true, err
	}
	return cove.Sandbox{}, false, givenUp(ctx)
}

// ResumeSandbox resumes a paused sandbox. Conflict: it runs.
func (c *Control) ResumeSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) (cove.Sandbox, error) {
	const op = "control.ResumeSandbox"
	sb, err := c.shown(ctx, op, team, id)
	if err != nil {
		return cove.Sandbox{}, err
	}
	if sb.State == cove.Running {
		return cove.Sandbox{}, cove.E(cove.Conflict, op, nil, "Sandbox %s is already running", id)
	}
	sb, _, err = c.ConnectSandbox(ctx, team, id, d)
	return sb, err
}

// resume is the operation: start from the snapshot, and remove it only once the
// sandbox runs. On an error it is paused as before.
func (c *Control) resume(ctx context.Context, sandbox cove.SandboxID, life time.Duration) (cove.Sandbox, error) {
	const op = "control.resume"
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartLimit)
	defer cancel()
	sb, err := c.fresh(ctx, sandbox, cove.Paused)
	if err != nil {
		return cove.Sandbox{}, err
	}
	sb, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{
		To: cove.Resuming, Execution: id.Execution(), EndAt: c.cfg.Now().Add(c.cfg.StartLimit + life),
	})
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, sb.ID, err)
	}
	snapshot, none := sb.Snapshot, cove.SnapshotID("")
	build, err := c.cfg.Store.Build(ctx, sb.Build)
	if err == nil {
		err = c.cfg.Node.Create(ctx, c.spec(sb, build))
	}
	undo := context.WithoutCancel(ctx)
	if err != nil {
		_, terr := c.cfg.Store.Transition(undo, sb.ID, sb.Execution, store.Change{To: cove.Paused})
		return cove.Sandbox{}, errors.Join(err, terr)
	}
	now := c.cfg.Now()
	running, err := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{
		To: cove.Running, Snapshot: &none, StartedAt: now, EndAt: now.Add(life),
	})
	if err == nil {
		err = c.cfg.Node.SetEnd(ctx, sb.ID, sb.Execution, running.EndAt)
	}
	if err != nil && running.State != cove.Running {
		_, terr := c.cfg.Store.Transition(undo, sb.ID, sb.Execution, store.Change{To: cove.Paused})
		return cove.Sandbox{}, errors.Join(err, c.cfg.Node.Kill(undo, sb.ID, sb.Execution), terr)
	}
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, sb.ID, err)
	}
	if err := c.cfg.Node.DeleteSnapshot(undo, snapshot); err != nil {
		c.cfg.Log.Error("the snapshot of a resumed sandbox could not be removed; the next start does it", "snapshot", snapshot, "err", err)
	}
	return running, nil
}

// retryPause is how much longer a sandbox lives that should have been paused
// and could not be: losing it is never the answer.
const retryPause = 30 * time.Second

// due pauses a sandbox whose time is up.
func (c *Control) due(ctx context.Context, e node.Event) {
	c.work.Go(func() {
		sb, err := c.cfg.Store.SandboxByID(ctx, e.ID)
		if err != nil || sb.Execution != e.Execution || sb.EndAt.After(c.cfg.Now()) {
			return // it is gone, or lives longer by now
		}
		err = c.PauseSandbox(ctx, sb.Team, sb.ID, sb.Lifecycle.FilesOnly)
		if err == nil || cove.Is(err, cove.NotFound) || cove.Is(err, cove.Conflict) {
			return
		}
		c.cfg.Log.Error("a sandbox whose time is up could not be paused; it runs on and is tried again", "sandbox", e.ID, "in", retryPause, "err", err)
		if _, err := c.moveEnd(ctx, "control.due", sb.Team, sb.ID, retryPause, false); err != nil {
			c.cfg.Log.Error("nor could its end be moved", "sandbox", e.ID, "err", err)
		}
	})
}

// wakeTimeout is the least life of a sandbox that traffic resumed.
const wakeTimeout = 5 * time.Minute

// Wake resumes a paused sandbox for a request to one of its ports, if its owner
// wants that. token is what the request brought for the daemon, and is asked
// for only if the request is the daemon's. NotFound: nobody may know that there
// is such a sandbox, or it is not to be woken. Forbidden: the token is wrong.
func (c *Control) Wake(ctx context.Context, id cove.SandboxID, daemon bool, token string) error {
	const op = "control.Wake"
	if err := c.ready(ctx); err != nil {
		return err
	}
	sb, err := c.cfg.Store.SandboxByID(ctx, id)
	if err != nil {
		return orUnknown(op, id, err)
	}
	if sb.State == cove.Running {
		return nil
	}
	if sb.FilesOnly { // what a request expects to find was not kept
		return unknown(op, id, nil)
	}
	if !sb.Lifecycle.AutoResume || sb.State == cove.Starting || sb.State == cove.Killing {
		return unknown(op, id, nil)
	}
	if sb.Secure && daemon && !c.cfg.Tokens.Equal(token, c.cfg.Tokens.Envd(id)) {
		return cove.E(cove.Forbidden, op, nil,
			"This sandbox can't be resumed with the credentials provided. Check your access token and try again.")
	}
	_, _, err = c.ConnectSandbox(ctx, sb.Team, id, max(sb.Lifecycle.Timeout, wakeTimeout))
	return err
}
