package control

import (
	"context"
	"errors"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
)

const forking = "fork"

// ForkSandbox saves a running sandbox once, lets it go on, and starts count
// sandboxes from what was saved, each with an identity of its own. It succeeds
// in part: the results are in no order, one for each that was asked for. The
// origin's end does not change. Conflict: it is paused.
func (c *Control) ForkSandbox(ctx context.Context, team cove.TeamID, origin cove.SandboxID, count int, life time.Duration) ([]cove.ForkResult, error) {
	const op = "control.ForkSandbox"
	if err := c.checkTimeout(op, life, 0); err != nil {
		return nil, err
	}
	for {
		sb, err := c.shown(ctx, op, team, origin)
		if err != nil {
			return nil, err
		}
		if sb.State == cove.Paused {
			return nil, cove.E(cove.Conflict, op, nil, "Sandbox '%s' is paused and cannot be forked; resume it first", origin)
		}
		// Not joined: two forks are two sets of sandboxes. The second waits.
		var results []cove.ForkResult
		kind := forking + string(id.Snapshot())
		_, again, err := c.operate(ctx, origin, kind, func(ctx context.Context) (cove.Sandbox, error) {
			var err error
			results, err = c.fork(ctx, origin, count, life)
			return sb, err
		})
		if !again {
			return results, err
		}
	}
}

// fork is the operation. Should the server die, the next one lets the origin go
// on, ends what was being started, and removes the snapshot, which no record
// names.
func (c *Control) fork(ctx context.Context, sandbox cove.SandboxID, count int, life time.Duration) ([]cove.ForkResult, error) {
	const op = "control.fork"
	origin, err := c.fresh(ctx, sandbox, cove.Running)
	if err != nil {
		return nil, err
	}
	snapshot := id.Snapshot()
	defer c.hold(snapshot)()
	if _, err := c.save(ctx, op, origin, node.Save{Snapshot: snapshot, Strict: true}); err != nil {
		return nil, err
	}
	results := make([]cove.ForkResult, count)
	var starts sync.WaitGroup
	for i := range results {
		starts.Go(func() { results[i].Sandbox, results[i].Err = c.forkOne(ctx, origin, snapshot, life) })
	}
	starts.Wait()
	// The engines hold what they still load of it.
	if err := c.cfg.Node.DeleteSnapshot(ctx, snapshot); err != nil {
		c.cfg.Log.Error("the snapshot of a fork could not be removed; the next start does it", "snapshot", snapshot, "err", err)
	}
	return results, nil
}

// forkOne starts one sandbox from the snapshot of another.
func (c *Control) forkOne(ctx context.Context, origin cove.Sandbox, snapshot cove.SnapshotID, life time.Duration) (cove.Sandbox, error) {
	now := c.cfg.Now()
	sb := origin.Clone()
	sb.ID, sb.Execution, sb.State = id.Sandbox(), id.Execution(), cove.Starting
	sb.StartedAt, sb.EndAt = now, now.Add(c.cfg.StartLimit+life)
	started, err := c.admit(ctx, sb, source{snapshot: snapshot}, life)
	if err == nil {
		c.noteForked(origin, started)
	}
	return started, err
}

// save saves a running sandbox and lets it go on.
func (c *Control) save(ctx context.Context, op string, sb cove.Sandbox, how node.Save) (node.Saved, error) {
	saved, err := c.cfg.Node.Pause(ctx, sb.ID, sb.Execution, how)
	if err != nil {
		return node.Saved{}, orUnknown(op, sb.ID, err)
	}
	if err := c.cfg.Node.Thaw(ctx, sb.ID, sb.Execution); err != nil {
		return node.Saved{}, errors.Join(orUnknown(op, sb.ID, err), c.cfg.Node.DeleteSnapshot(ctx, how.Snapshot))
	}
	return saved, nil
}
