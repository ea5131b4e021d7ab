package control

import (
	"context"
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
		if _, err := c.Sweep(ctx, SweepAge, false); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("the disk could not be swept", "err", err)
		}
		if err := c.cfg.Store.ForgetRequests(ctx, c.cfg.Now().Add(-keyLife)); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("old requests could not be forgotten", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep removes from the disk what no record and no sandbox needs any more and is
// old enough, and returns it. With dryRun it only says what it would remove.
func (c *Control) Sweep(ctx context.Context, olderThan time.Duration, dryRun bool) ([]node.Garbage, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	keep := node.Keep{OlderThan: olderThan, DryRun: dryRun}
	records, err := c.cfg.Store.NodeSandboxes(ctx, cove.LocalNode)
	if err != nil {
		return nil, err
	}
	for _, sb := range records {
		keep.Builds = append(keep.Builds, sb.Build)
		if sb.Snapshot != "" {
			keep.Snapshots = append(keep.Snapshots, sb.Snapshot)
		}
	}
	kept, err := c.cfg.Store.KeptSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	current, err := c.cfg.Store.CurrentBuilds(ctx)
	if err != nil {
		return nil, err
	}
	keep.Snapshots, keep.Builds = append(keep.Snapshots, kept...), append(keep.Builds, current...)
	return c.cfg.Node.Sweep(ctx, keep)
}
