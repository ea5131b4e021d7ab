package control

import (
	"context"
	"math"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// flushEvery is how long metrics are held before they are written; lines of
// logs are written with every measurement.
const flushEvery = time.Minute

// tidyEvery is how often old records are thinned and dropped: often, so that
// there is little to do each time, and nobody who writes has to wait for it.
const tidyEvery = time.Minute

// A step is how far apart metrics are.
type step struct {
	below time.Duration // for spans of time, or an age, shorter than this
	apart time.Duration // 0: as they were measured
}

// steps are how far apart metrics are in an answer, by the span of time it is
// about, and in the records, by their age.
func steps() []step {
	const day = 24 * time.Hour
	return []step{
		{time.Hour, 0}, {6 * time.Hour, 30 * time.Second}, {12 * time.Hour, time.Minute}, {day, 2 * time.Minute},
		{7 * day, 5 * time.Minute}, {math.MaxInt64, 15 * time.Minute},
	}
}

// apart returns how far apart the metrics of a span of time are.
func apart(span time.Duration) time.Duration {
	for _, s := range steps() {
		if span < s.below {
			return s.apart
		}
	}
	return 0 // there is no longer one
}

// A meter measures what runs. Its goroutine alone uses it.
type meter struct {
	c       *Control
	last    map[cove.SandboxID]node.Measurement
	quiet   map[cove.SandboxID]time.Time // since when each is idle
	flushed time.Time
	tidied  time.Time
	over    <-chan struct{} // closed when nobody waits for new operations any more
}

// meter measures what runs, again and again, and sees that what was measured and
// noted gets into the records and out of them again. It returns when ctx is
// done, with everything written. Once over is closed it begins no more work.
func (c *Control) meter(ctx context.Context, over <-chan struct{}) {
	m := &meter{c: c, flushed: c.cfg.Now(), over: over}
	ticker := time.NewTicker(c.cfg.SampleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			m.report("what was measured could not be written", c.flushMetrics(ctx))
			m.report("logs of sandboxes could not be written", c.flushLines(ctx))
			return
		case <-ticker.C:
			m.measure(ctx)
			m.report("logs of sandboxes could not be written; it is tried again", c.flushLines(ctx))
			if now := c.cfg.Now(); now.Sub(m.flushed) >= flushEvery {
				m.flushed = now
				m.report("what was measured could not be written; it is tried again", c.flushMetrics(ctx))
			}
			if now := c.cfg.Now(); now.Sub(m.tidied) >= tidyEvery {
				m.tidied = now
				m.report("old metrics and logs could not be removed; it is tried again", c.tidy(ctx, now))
			}
		}
	}
}

func (m *meter) report(what string, err error) {
	if err != nil {
		m.c.cfg.Log.Warn(what, "err", err)
	}
}

// measure takes one metric of everything that runs.
func (m *meter) measure(ctx context.Context) {
	all, err := m.c.cfg.Node.Measure(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.c.cfg.Log.Warn("what runs could not be measured", "err", err)
		}
		return
	}
	metrics := make([]cove.Metric, 0, len(all))
	now := make(map[cove.SandboxID]node.Measurement, len(all))
	for _, one := range all {
		now[one.ID] = one
		before, ok := m.last[one.ID]
		if !ok || before.Execution != one.Execution {
			before = node.Measurement{At: one.CountedOn}
		}
		if metric, ok := metricOf(before, one); ok {
			metrics = append(metrics, metric)
		}
	}
	select {
	case <-m.over:
	default:
		m.pauseIdle(ctx, now)
	}
	m.last = now
	m.c.journal.addMetrics(metrics)
}

// metricOf returns what a sandbox used, with its processors from one measurement
// to the next. There is none if it is not known since when they count.
func metricOf(before, now node.Measurement) (cove.Metric, bool) {
	elapsed := now.At.Sub(before.At)
	if before.At.IsZero() || elapsed <= 0 {
		return cove.Metric{}, false
	}
	r := now.Resources
	cpu := 100 * float64(now.CPU-before.CPU) / float64(elapsed) / float64(max(r.CPUs, 1))
	memory, disk := int64(r.MemoryMB)<<20, int64(r.DiskMB)<<20
	// What the engine holds back for a moment, or the host rounds up, is not
	// more than there is.
	used := within(now.Memory, memory)
	return cove.Metric{
		Sandbox: now.ID, At: now.At.UTC().Truncate(time.Microsecond), CPUs: r.CPUs,
		CPUPercent: math.Round(min(max(cpu, 0), 100)*100) / 100,
		MemoryUsed: used, MemoryTotal: memory, MemoryCache: within(now.Cache, memory-used),
		DiskUsed: within(now.Disk, disk), DiskTotal: disk,
	}, true
}

func within(n, limit int64) int64 { return min(max(n, 0), limit) }

// tidy thins the metrics that have become old and drops what is too old. Each
// step is a write of its own, so that others get their turn.
func (c *Control) tidy(ctx context.Context, now time.Time) error {
	all := steps()
	for i, s := range all[1:] {
		if err := c.cfg.Store.ThinMetrics(ctx, now.Add(-all[i].below), s.apart); err != nil {
			return err
		}
	}
	if err := c.cfg.Store.DropMetrics(ctx, now.Add(-c.cfg.MetricsRetention)); err != nil {
		return err
	}
	if err := c.cfg.Store.DropLogs(ctx, now.Add(-c.cfg.LogRetention)); err != nil {
		return err
	}
	return c.expireBuilds(ctx)
}
