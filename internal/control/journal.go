package control

import (
	"context"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A journal holds metrics and log lines until they are written together: one
// write to the disk for all sandboxes. If the server is killed, what it holds is
// lost; if it is stopped, it is not.
type journal struct {
	writing sync.Mutex // one write at a time; taken before mu, held during it

	mu      sync.Mutex
	metrics []cove.Metric  // guarded by mu
	lines   []cove.LogLine // guarded by mu
}

// Bounds of what the journal holds while it cannot be written; the oldest goes
// first.
const (
	maxPendingMetrics = 100_000
	maxPendingLines   = 10_000
)

// Of what sandboxes say themselves, fewer lines are held, so that they take no
// place from what becomes of them: from many on they are written at once, and
// past most, which is when that fails, the newest goes.
const (
	manySaid = 1000
	mostSaid = maxPendingLines / 2
)

// Bounds of a sandbox's log.
const (
	maxLine  = 4 << 10 // bytes of a message
	maxLines = 10_000  // of a sandbox
)

// flushLimit bounds one write, so that a server that stops does so.
const flushLimit = 10 * time.Second

func (j *journal) addMetrics(metrics []cove.Metric) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.metrics = newest(append(j.metrics, metrics...), maxPendingMetrics)
}

func (j *journal) addLine(line cove.LogLine) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = newest(append(j.lines, line), maxPendingLines)
}

// addSaid adds a line that a sandbox said, if there is room, and reports whether
// it made them many, or as many more.
func (j *journal) addSaid(line cove.LogLine) (many bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) >= mostSaid {
		return false
	}
	j.lines = append(j.lines, line)
	return len(j.lines)%manySaid == 0
}

// newest returns the last n of s, or all.
func newest[T any](s []T, n int) []T { return s[max(len(s)-n, 0):] }

// flushMetrics writes the metrics that are held. What cannot be written is held
// on to.
func (c *Control) flushMetrics(ctx context.Context) error {
	j := &c.journal
	return flush(ctx, j, &j.metrics, maxPendingMetrics, c.cfg.Store.AddMetrics)
}

// flushLines does the same for lines of logs.
func (c *Control) flushLines(ctx context.Context) error {
	j := &c.journal
	return flush(ctx, j, &j.lines, maxPendingLines, func(ctx context.Context, lines []cove.LogLine) error {
		return c.cfg.Store.AddLogs(ctx, lines, maxLines)
	})
}

// flush writes what held points to, which is guarded by the journal's mu. The
// write goes on if ctx ends: others may wait for it.
func flush[T any](ctx context.Context, j *journal, held *[]T, most int, write func(context.Context, []T) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	batch := *held
	*held = nil
	j.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := write(ctx, batch)
	if err != nil {
		j.mu.Lock()
		*held = newest(append(batch, *held...), most)
		j.mu.Unlock()
	}
	return err
}
