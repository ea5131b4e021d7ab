package store

import (
	"context"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Metrics are what sandboxes used over time. They outlive their sandbox until
// they are dropped. How much is lost when the host goes down is up to who adds
// them: many at a time, so that the disk is written seldom.
type Metrics interface {
	// AddMetrics adds metrics of any sandboxes, all or none. One of the same
	// sandbox and moment as another takes its place.
	AddMetrics(ctx context.Context, metrics []cove.Metric) error
	// Metrics returns a sandbox's metrics from one moment to another, both
	// included, oldest first.
	Metrics(ctx context.Context, id cove.SandboxID, from, to time.Time) ([]cove.Metric, error)
	// LatestMetrics returns the newest metric of each sandbox that has one.
	LatestMetrics(ctx context.Context, ids []cove.SandboxID) (map[cove.SandboxID]cove.Metric, error)
	// ThinMetrics makes one metric of all that a sandbox has in the same step
	// of time: the largest figures, at the moment of the last. It takes those
	// before a moment that have not been thinned to this step or a longer one.
	ThinMetrics(ctx context.Context, before time.Time, step time.Duration) error
	// DropMetrics removes the metrics before a moment.
	DropMetrics(ctx context.Context, before time.Time) error
}

// Logs are the logs of sandboxes. They outlive their sandbox until they are
// dropped.
type Logs interface {
	// AddLogs adds lines of any sandboxes, all or none. Of each of these
	// sandboxes only the newest keep lines stay.
	AddLogs(ctx context.Context, lines []cove.LogLine, keep int) error
	// Logs returns lines of a team's sandbox; none if it has none, whoever else
	// has. Lines of one moment are in the order in which they were added.
	Logs(ctx context.Context, team cove.TeamID, id cove.SandboxID, filter cove.LogFilter) ([]cove.LogLine, error)
	// DropLogs removes the lines before a moment.
	DropLogs(ctx context.Context, before time.Time) error
}
