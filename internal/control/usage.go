package control

import (
	"context"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// SandboxMetrics returns what a team's sandbox used from one moment to another,
// both included, oldest first. The longer the time they are of, the further
// apart they are; each then has the largest figures of its part of the time.
func (c *Control) SandboxMetrics(ctx context.Context, team cove.TeamID, id cove.SandboxID, from, to time.Time) ([]cove.Metric, error) {
	if _, err := c.shown(ctx, "control.SandboxMetrics", team, id); err != nil {
		return nil, err
	}
	c.settle("metrics", c.flushMetrics(ctx))
	all, err := c.cfg.Store.Metrics(ctx, id, from, to)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	// Not the time that was asked for: of a young sandbox, "ever" is short.
	return thin(all, apart(all[len(all)-1].At.Sub(all[0].At))), nil
}

// thin makes one metric of all in the same step of time. They are in order.
func thin(metrics []cove.Metric, step time.Duration) []cove.Metric {
	if step == 0 {
		return metrics
	}
	var thinned []cove.Metric
	for _, m := range metrics {
		last := len(thinned) - 1
		if last >= 0 && thinned[last].At.Truncate(step).Equal(m.At.Truncate(step)) {
			thinned[last] = m.Max(thinned[last])
		} else {
			thinned = append(thinned, m)
		}
	}
	return thinned
}

// LatestMetrics returns what each of a team's sandboxes used last. Those that are
// not the team's, and those that were not measured yet, are left out.
func (c *Control) LatestMetrics(ctx context.Context, team cove.TeamID, ids []cove.SandboxID) (map[cove.SandboxID]cove.Metric, error) {
	var own []cove.SandboxID
	for _, id := range ids {
		_, err := c.shown(ctx, "control.LatestMetrics", team, id)
		if cove.Is(err, cove.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		own = append(own, id)
	}
	c.settle("metrics", c.flushMetrics(ctx))
	return c.cfg.Store.LatestMetrics(ctx, own)
}

// SandboxLogs returns lines of the log of a team's sandbox. The log can be read
// when the sandbox has ended, for as long as it is kept: why it ended is in it.
func (c *Control) SandboxLogs(ctx context.Context, team cove.TeamID, id cove.SandboxID, f cove.LogFilter) ([]cove.LogLine, error) {
	const op = "control.SandboxLogs"
	_, err := c.shown(ctx, op, team, id)
	if err != nil && !cove.Is(err, cove.NotFound) {
		return nil, err
	}
	c.settle("logs", c.flushLines(ctx))
	if err != nil {
		some, lerr := c.cfg.Store.Logs(ctx, team, id, cove.LogFilter{Limit: 1})
		if lerr != nil {
			return nil, lerr
		}
		if len(some) == 0 {
			return nil, err
		}
	}
	return c.cfg.Store.Logs(ctx, team, id, f)
}

// settle reports that what a reader is about to read could not be brought up to
// date; the reader gets what there is.
func (c *Control) settle(what string, err error) {
	if err != nil {
		c.cfg.Log.Warn("the newest "+what+" could not be written; it is tried again", "err", err)
	}
}
