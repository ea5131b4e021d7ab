package control

import (
	"context"
	"fmt"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// idleCPU is how much of one processor a sandbox may use and still be idle. Its
// daemon and an idle runtime or two need a tenth of it.
const idleCPU = 0.02

// pauseIdle pauses the sandboxes that have been idle for as long as their owners
// allow. It is called with each measurement, before that becomes the last one.
func (m *meter) pauseIdle(ctx context.Context, all map[cove.SandboxID]node.Measurement) {
	quiet := make(map[cove.SandboxID]time.Time)
	for id, now := range all {
		if now.IdleAfter == 0 {
			continue
		}
		since := m.quietSince(now)
		if now.At.Sub(since) >= now.IdleAfter {
			m.c.idle(ctx, id, now.Execution, now.At.Sub(since))
			since = now.At // if it cannot be paused, it is tried again after as long
		}
		quiet[id] = since
	}
	m.quiet = quiet
}

// quietSince returns since when a sandbox is idle.
func (m *meter) quietSince(now node.Measurement) time.Time {
	since, known := m.quiet[now.ID]
	before := m.last[now.ID]
	busy := now.Open > 0 || float64(now.CPU-before.CPU) > idleCPU*float64(now.At.Sub(before.At))
	if !known || before.Execution != now.Execution || busy {
		return now.At
	}
	if now.UsedAt.After(since) {
		return now.UsedAt
	}
	return since
}

// idle pauses a sandbox that nobody uses.
func (c *Control) idle(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, since time.Duration) {
	c.work.Go(func() {
		sb, err := c.cfg.Store.SandboxByID(ctx, id)
		if err != nil || sb.Execution != execution || sb.State != cove.Running {
			return // it is something else by now
		}
		err = c.PauseSandbox(ctx, sb.Team, sb.ID, cove.Pause{FilesOnly: sb.Lifecycle.FilesOnly})
		switch {
		case err == nil:
			c.note(sb, cove.LogInfo, "idle", fmt.Sprintf("nobody used the sandbox for %s, so it was paused", since.Round(time.Second)))
		case !cove.Is(err, cove.NotFound) && !cove.Is(err, cove.Conflict):
			c.cfg.Log.Error("an idle sandbox could not be paused; it runs on and is tried again", "sandbox", id, "err", err)
		}
	})
}
