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

// ConnectSandbox makes sure that a sandbox runs for at least the time asked for:
// one that runs lives longer, one that is paused is resumed. Conflict: it is to
// go on without its memory, and somebody resumes it with it; or what was saved
// of its memory cannot go on.
func (c *Control) ConnectSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, req cove.Resume) (sb cove.Sandbox, resumed bool, err error) {
	const op = "control.ConnectSandbox"
	kind := resuming
	if req.FilesOnly {
		kind += filesOnly
	}
	waited := false
	for ctx.Err() == nil {
		if sb, err = c.shown(ctx, op, team, id); err != nil {
			return cove.Sandbox{}, false, err
		}
		if sb.State == cove.Running {
			if waited && req.FilesOnly {
				return cove.Sandbox{}, false, cove.Coded(cove.E(cove.Conflict, op, nil,
					"Sandbox %q has just been started by another request, not without its memory as this one asks", id), "sandbox_start_in_flight")
			}
			sb, err = c.ExtendSandbox(ctx, team, id, req.Timeout)
			if cove.Is(err, cove.Conflict) { // it stopped running just now
				continue
			}
			return sb, false, err
		}
		if err := c.checkTimeout(op, req.Timeout, 0); err != nil {
			return cove.Sandbox{}, false, err
		}
		resumedNow, again, err := c.operate(ctx, id, kind, func(ctx context.Context) (cove.Sandbox, error) { return c.resume(ctx, id, req) })
		if again {
			waited = true
			continue
		}
		return resumedNow, true, err
	}
	return cove.Sandbox{}, false, givenUp(ctx)
}

// ResumeSandbox resumes a paused sandbox. Conflict: it runs.
func (c *Control) ResumeSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, req cove.Resume) (cove.Sandbox, error) {
	const op = "control.ResumeSandbox"
	sb, err := c.shown(ctx, op, team, id)
	if err != nil {
		return cove.Sandbox{}, err
	}
	if sb.State == cove.Running {
		return cove.Sandbox{}, cove.E(cove.Conflict, op, nil, "Sandbox %s is already running", id)
	}
	sb, _, err = c.ConnectSandbox(ctx, team, id, req)
	return sb, err
}

// resume is the operation: start from the snapshot, and remove it only once the
// sandbox runs. On an error it is paused as before.
func (c *Control) resume(ctx context.Context, sandbox cove.SandboxID, req cove.Resume) (cove.Sandbox, error) {
	const op = "control.resume"
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartLimit)
	defer cancel()
	sb, err := c.fresh(ctx, sandbox, cove.Paused)
	if err != nil {
		return cove.Sandbox{}, err
	}
	if sb.Unresponsive && !req.FilesOnly {
		return cove.Sandbox{}, cove.Coded(cove.E(cove.Conflict, op, nil,
			"the daemon in sandbox %q did not answer when it was paused, and its memory would bring that back: resume it without its memory (\"memory\": false)", sandbox),
			"sandbox_snapshot_guest_agent_unresponsive")
	}
	err = c.withinQuota(ctx, sb.Team, func() (err error) {
		sb, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{
			To: cove.Resuming, Execution: id.Execution(), EndAt: c.cfg.Now().Add(c.cfg.StartLimit + req.Timeout), OnTimeout: req.OnTimeout,
		})
		return err
	})
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, sandbox, err)
	}
	undo := context.WithoutCancel(ctx)
	running, err := c.goOn(ctx, sb, req)
	if err != nil {
		_, terr := c.cfg.Store.Transition(undo, sb.ID, sb.Execution, store.Change{To: cove.Paused})
		return cove.Sandbox{}, errors.Join(err, terr)
	}
	if err := c.cfg.Node.DeleteSnapshot(undo, sb.Snapshot); err != nil {
		c.cfg.Log.Error("the snapshot of a resumed sandbox could not be removed; the next start does it", "snapshot", sb.Snapshot, "err", err)
	}
	c.note(running, cove.LogInfo, "resumed", "the sandbox was resumed and runs")
	return running, nil
}

// goOn starts a sandbox that is being resumed. On an error nothing of it runs,
// and its snapshot is as it was.
func (c *Control) goOn(ctx context.Context, sb cove.Sandbox, req cove.Resume) (running cove.Sandbox, err error) {
	undo := context.WithoutCancel(ctx)
	spec := c.spec(sb)
	if req.FilesOnly || sb.FilesOnly {
		_, setup, err := c.origin(ctx, sb)
		if err != nil {
			return cove.Sandbox{}, err
		}
		spec.Start = setup.StartCommand()
	}
	if req.FilesOnly && !sb.FilesOnly {
		files := id.Snapshot()
		defer c.hold(files)()
		if err := c.leaveMemory(ctx, spec, files); err != nil {
			return cove.Sandbox{}, err
		}
		spec.Snapshot = files
		defer func() { err = errors.Join(err, c.cfg.Node.DeleteSnapshot(undo, spec.Snapshot)) }()
	}
	if err := c.cfg.Node.Create(ctx, spec); err != nil {
		return cove.Sandbox{}, err
	}
	now := c.cfg.Now()
	running, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{
		To: cove.Running, Snapshot: &store.SnapshotChange{}, StartedAt: now, EndAt: now.Add(req.Timeout),
	})
	if err == nil {
		if err = c.cfg.Node.SetEnd(ctx, sb.ID, sb.Execution, running.EndAt); err != nil {
			// It ended already. What was saved is still there, and counts.
			_, terr := c.cfg.Store.Transition(undo, sb.ID, sb.Execution, store.Change{To: cove.Pausing, Snapshot: &store.SnapshotChange{
				ID: sb.Snapshot, FilesOnly: sb.FilesOnly, Unresponsive: sb.Unresponsive, Bytes: sb.SnapshotBytes,
			}})
			err = errors.Join(err, terr)
		}
	}
	if err != nil {
		return cove.Sandbox{}, errors.Join(err, c.cfg.Node.Kill(undo, sb.ID, sb.Execution))
	}
	return running, nil
}

// leaveMemory makes a snapshot of the files of the spec's, which has memory too,
// and leaves that one as it is: it lets it go on for the moment that takes, unused
// and without a network to the outside. Only the engine knows how the files lie
// in what it wrote.
func (c *Control) leaveMemory(ctx context.Context, spec cove.Spec, files cove.SnapshotID) error {
	spec.Unused, spec.Internet = true, false
	if err := c.cfg.Node.Create(ctx, spec); err != nil {
		return err
	}
	_, err := c.cfg.Node.Pause(ctx, spec.ID, spec.Execution, node.Save{Snapshot: files, FilesOnly: true})
	kerr := c.cfg.Node.Kill(context.WithoutCancel(ctx), spec.ID, spec.Execution)
	if err == nil && kerr != nil {
		err = errors.Join(kerr, c.cfg.Node.DeleteSnapshot(context.WithoutCancel(ctx), files))
	}
	return err
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
	_, _, err = c.ConnectSandbox(ctx, sb.Team, id, cove.Resume{Timeout: max(sb.Lifecycle.Timeout, wakeTimeout)})
	return err
}
