package control

import (
	"context"
	"slices"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/store"
)

// reconciliation is the comparison of records and node after a start.
type reconciliation struct {
	c         *Control
	running   map[cove.SandboxID]node.Running // what the node runs and no record has explained yet
	snapshots []cove.SnapshotID               // what the node has
	wanted    map[cove.SnapshotID]bool        // what records refer to
}

// reconcile goes through the node's records after a start. What was being done
// when the server died is finished or taken back; a record of a sandbox of which
// there is nothing goes; a sandbox or a snapshot without a record goes too.
func (c *Control) reconcile(ctx context.Context) error {
	// Nobody was told of these, so the same request may make another sandbox.
	if err := c.cfg.Store.ForgetUnfinished(ctx); err != nil {
		return err
	}
	if err := c.closeBuilds(ctx); err != nil {
		return err
	}
	records, err := c.cfg.Store.NodeSandboxes(ctx, cove.LocalNode)
	if err != nil {
		return err
	}
	r, err := c.compare(ctx)
	if err != nil {
		return err
	}
	kept, err := c.cfg.Store.KeptSnapshots(ctx)
	if err != nil {
		return err
	}
	for _, snapshot := range kept {
		r.wanted[snapshot] = true
	}
	for _, sb := range records {
		if err := r.one(ctx, sb); err != nil {
			return err
		}
	}
	return r.rest(ctx)
}

// reconcileOne does so for one record, in the midst of work. Its operation must
// be the caller's.
func (c *Control) reconcileOne(ctx context.Context, sb cove.Sandbox) error {
	r, err := c.compare(ctx)
	if err != nil {
		return err
	}
	c.cfg.Log.Warn("an operation left a sandbox half way; it is put right", "sandbox", sb.ID, "state", sb.State)
	return r.one(ctx, sb)
}

// compare begins a comparison with what the node has now.
func (c *Control) compare(ctx context.Context) (*reconciliation, error) {
	list, err := c.cfg.Node.List(ctx)
	if err != nil {
		return nil, err
	}
	r := &reconciliation{c: c, running: map[cove.SandboxID]node.Running{}, wanted: map[cove.SnapshotID]bool{}}
	for _, sb := range list {
		r.running[sb.ID] = sb
	}
	r.snapshots, err = c.cfg.Node.Snapshots(ctx)
	return r, err
}

// one brings one record into agreement.
func (r *reconciliation) one(ctx context.Context, sb cove.Sandbox) error {
	there, runs := r.running[sb.ID]
	runs = runs && there.Execution == sb.Execution
	saved := sb.Snapshot != "" && slices.Contains(r.snapshots, sb.Snapshot)
	switch {
	case sb.State == cove.Running && runs:
		return r.goesOn(ctx, sb, there)
	case sb.State == cove.Pausing && runs:
		// It was being saved, and nobody was told that it is: it goes on.
		sb, err := r.c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Running, Snapshot: &store.SnapshotChange{}})
		if err != nil {
			return err
		}
		return r.goesOn(ctx, sb, there)
	case sb.State == cove.Pausing && saved:
		// The host went down after the snapshot was complete: that is the sandbox.
		r.wanted[sb.Snapshot] = true
		_, err := r.c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Paused})
		return err
	case sb.State == cove.Paused:
		r.wanted[sb.Snapshot] = true // a process of it that still stands is ended by rest
		return nil
	case sb.State == cove.Resuming:
		// Nobody was told that it runs, so it is as it was.
		r.wanted[sb.Snapshot] = true
		if err := r.c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
			return err
		}
		delete(r.running, sb.ID)
		_, err := r.c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Paused})
		return err
	}
	delete(r.running, sb.ID)
	if err := r.c.finish(ctx, sb); err != nil {
		return err
	}
	r.c.noteLost(sb)
	return nil
}

// goesOn takes note of a sandbox that runs, and sees that it does so as the
// record says: the server may have died between the two.
func (r *reconciliation) goesOn(ctx context.Context, sb cove.Sandbox, there node.Running) error {
	delete(r.running, sb.ID)
	err := r.c.cfg.Node.Thaw(ctx, sb.ID, sb.Execution)
	if err == nil && !there.EndAt.Equal(sb.EndAt) {
		err = r.c.cfg.Node.SetEnd(ctx, sb.ID, sb.Execution, sb.EndAt)
	}
	if cove.Is(err, cove.NotFound) { // it ended meanwhile, and the node tells so
		return nil
	}
	return err
}

// rest removes what no record wants.
func (r *reconciliation) rest(ctx context.Context) error {
	for _, sb := range r.running {
		r.c.cfg.Log.Warn("ending a sandbox that has no record of running", "sandbox", sb.ID)
		if err := r.c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
			return err
		}
	}
	for _, snapshot := range r.snapshots {
		if r.wanted[snapshot] {
			continue
		}
		r.c.cfg.Log.Warn("removing a snapshot that has no record", "snapshot", snapshot)
		if err := r.c.cfg.Node.DeleteSnapshot(ctx, snapshot); err != nil {
			return err
		}
	}
	return nil
}

// finish ends a sandbox on its node, with what it has there, and removes its
// record. It may be repeated.
func (c *Control) finish(ctx context.Context, sb cove.Sandbox) error {
	if err := c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
		return err
	}
	if sb.Snapshot != "" {
		if err := c.cfg.Node.DeleteSnapshot(ctx, sb.Snapshot); err != nil {
			return err
		}
	}
	return c.cfg.Store.DeleteSandbox(ctx, sb.ID, sb.Execution)
}
