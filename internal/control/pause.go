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
	creating = "create"
	pausing  = "pause"
	resuming = "resume"
	killing  = "kill"

	// What is wanted in another way is another operation.
	filesOnly = " without memory"
	strict    = " strictly"
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

// PauseSandbox saves a sandbox and ends its processes. When it returns, the
// snapshot is durable. On an error the sandbox runs on. Several callers may ask
// at once and get the same answer. Conflict: it is paused. Unavailable: the
// daemon inside does not answer, and should.
func (c *Control) PauseSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, req cove.Pause) error {
	const op = "control.PauseSandbox"
	kind := pausing
	if req.FilesOnly {
		kind += filesOnly
	}
	if req.Strict {
		kind += strict
	}
	for {
		sb, err := c.shown(ctx, op, team, id)
		if err != nil {
			return err
		}
		if sb.State == cove.Paused {
			return cove.E(cove.Conflict, op, nil, "Error pausing sandbox - sandbox '%s' is already paused", id)
		}
		_, again, err := c.operate(ctx, id, kind, func(ctx context.Context) (cove.Sandbox, error) { return c.pause(ctx, id, req) })
		if !again {
			return err
		}
	}
}

// pause is the operation: save, flip the record, and only then end the
// processes.
func (c *Control) pause(ctx context.Context, sandbox cove.SandboxID, req cove.Pause) (cove.Sandbox, error) {
	const op = "control.pause"
	sb, err := c.fresh(ctx, sandbox, cove.Running)
	if err != nil {
		return cove.Sandbox{}, err
	}
	most, err := c.snapshotRoom(ctx, sb.Team)
	if err != nil {
		return cove.Sandbox{}, err
	}
	// The record names the snapshot before it exists: should the host go down
	// once it is complete, it is found.
	snapshot := store.SnapshotChange{ID: id.Snapshot(), FilesOnly: req.FilesOnly}
	sb, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Pausing, Snapshot: &snapshot})
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, sb.ID, err)
	}
	saved, err := c.cfg.Node.Pause(ctx, sb.ID, sb.Execution, node.Save{
		Snapshot: snapshot.ID, FilesOnly: req.FilesOnly, Strict: req.Strict, Most: most,
	})
	if err != nil {
		return cove.Sandbox{}, errors.Join(err, c.runOn(ctx, sb))
	}
	snapshot.Unresponsive, snapshot.Bytes = saved.Unresponsive, saved.Bytes
	paused, err := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Paused, EndAt: c.cfg.Now(), Snapshot: &snapshot})
	if err != nil {
		return cove.Sandbox{}, errors.Join(err, c.cfg.Node.Thaw(ctx, sb.ID, sb.Execution), c.cfg.Node.DeleteSnapshot(ctx, snapshot.ID), c.runOn(ctx, sb))
	}
	if err := c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
		// It is paused all the same; what still stands goes with the next start.
		c.cfg.Log.Error("a paused sandbox's processes could not be ended", "sandbox", sb.ID, "err", err)
	}
	c.notePaused(paused)
	return paused, nil
}

// runOn records that a sandbox that was being paused runs on. If it ended
// meanwhile, which happened leaves to the operation, its record goes.
func (c *Control) runOn(ctx context.Context, sb cove.Sandbox) error {
	sb, err := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Running, Snapshot: &store.SnapshotChange{}})
	if err == nil {
		// It goes on by itself; asked to let it, the node says whether it is there.
		err = c.cfg.Node.Thaw(ctx, sb.ID, sb.Execution)
		if cove.Is(err, cove.NotFound) {
			return c.cfg.Store.DeleteSandbox(ctx, sb.ID, sb.Execution)
		}
	}
	if cove.Is(err, cove.NotFound) {
		return nil
	}
	return err
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
		err = c.PauseSandbox(ctx, sb.Team, sb.ID, cove.Pause{FilesOnly: sb.Lifecycle.FilesOnly})
		if err == nil || cove.Is(err, cove.NotFound) || cove.Is(err, cove.Conflict) {
			return
		}
		_, why := cove.Describe(err)
		c.note(sb, cove.LogWarn, "pause_failed", "the sandbox's time is up and it could not be paused; it runs on and is tried again: "+why)
		c.cfg.Log.Error("a sandbox whose time is up could not be paused; it runs on and is tried again", "sandbox", e.ID, "in", retryPause, "err", err)
		if _, err := c.moveEnd(ctx, "control.due", sb.Team, sb.ID, retryPause, false); err != nil {
			c.cfg.Log.Error("nor could its end be moved", "sandbox", e.ID, "err", err)
		}
	})
}
