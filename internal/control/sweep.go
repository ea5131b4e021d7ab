package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

const (
	sweepEvery = time.Hour

	// SweepAge is how long something must have been there before it can be
	// garbage: what is being made has no record for a while.
	SweepAge = 10 * time.Minute
)

// sweep keeps the disk clean until ctx is done.
func (c *Control) sweep(ctx context.Context) {
	select {
	case <-c.base.settled: // until then, a build that is on disk may not be on record
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		// First the records go, then what only they needed.
		if err := c.forget(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("old records could not be removed", "err", err)
		}
		if _, err := c.Sweep(ctx, SweepAge, false); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("the disk could not be swept", "err", err)
		}
		select {
		case <-tick.C:
		case <-c.swept: // somebody has just removed something large
		case <-ctx.Done():
			return
		}
	}
}

// sweepSoon has the disk swept without waiting for the hour.
func (c *Control) sweepSoon() {
	select {
	case c.swept <- struct{}{}:
	default: // it is about to be
	}
}

// How long what builds leave is kept when nothing names it.
const (
	untaggedLife = 24 * time.Hour     // builds
	layerLife    = 7 * 24 * time.Hour // layers and uploaded files, from their last use
)

// forget removes records that have had their time.
func (c *Control) forget(ctx context.Context) error {
	now := c.cfg.Now()
	return errors.Join(
		c.cfg.Store.ForgetRequests(ctx, now.Add(-keyLife)),
		c.cfg.Store.PruneBuilds(ctx, now.Add(-untaggedLife)),
		c.cfg.Store.PruneLayers(ctx, now.Add(-layerLife), c.cfg.LayerBytes),
		c.cfg.Uploads.Sweep(ctx, now.Add(-layerLife)),
	)
}

// hold keeps a snapshot that no record names yet from being swept, until release
// is called. Several may hold the same.
func (c *Control) hold(snapshot cove.SnapshotID) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[snapshot]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held[snapshot]--; c.held[snapshot] == 0 {
			delete(c.held, snapshot)
		}
	})
}

// unwanted returns the snapshots that nothing needs, and the builds that
// sandboxes were made from.
func (c *Control) unwanted(ctx context.Context) (snapshots []cove.SnapshotID, builds []cove.BuildID, err error) {
	// What is there comes first, then what is held, then the records: whatever
	// becomes of a snapshot meanwhile, it is seen on one of them.
	if snapshots, err = c.cfg.Node.Snapshots(ctx); err != nil {
		return nil, nil, err
	}
	wanted := map[cove.SnapshotID]bool{}
	c.mu.Lock()
	for snapshot := range c.held {
		wanted[snapshot] = true
	}
	c.mu.Unlock()
	records, err := c.cfg.Store.NodeSandboxes(ctx, cove.LocalNode)
	if err != nil {
		return nil, nil, err
	}
	for _, sb := range records {
		builds = append(builds, sb.Build)
		wanted[sb.Snapshot] = true
	}
	kept, err := c.cfg.Store.KeptSnapshots(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, snapshot := range kept {
		wanted[snapshot] = true
	}
	return slices.DeleteFunc(snapshots, func(s cove.SnapshotID) bool { return wanted[s] }), builds, nil
}

// Sweep removes from the disk what no record and no sandbox needs any more and is
// old enough, and returns it. With dryRun it only says what it would remove.
func (c *Control) Sweep(ctx context.Context, olderThan time.Duration, dryRun bool) ([]node.Garbage, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	snapshots, builds, err := c.unwanted(ctx)
	if err != nil {
		return nil, err
	}
	current, err := c.cfg.Store.CurrentBuilds(ctx)
	if err != nil {
		return nil, err
	}
	return c.cfg.Node.Sweep(ctx, node.SweepOrder{
		Snapshots: snapshots, Builds: slices.Concat(builds, current, c.cfg.Templates.InUse()), OlderThan: olderThan, DryRun: dryRun,
	})
}
