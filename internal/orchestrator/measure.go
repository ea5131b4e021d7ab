package orchestrator

import (
	"context"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Measure implements node.Node. It reads a few of the kernel's files for each
// sandbox, so hundreds of idle ones cost next to nothing, and none wakes up.
func (o *Orchestrator) Measure(ctx context.Context) ([]node.Measurement, error) {
	if _, err := o.running(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	sandboxes := make([]*sandbox, 0, len(o.sandboxes))
	for _, sb := range o.sandboxes {
		if sb.process != nil {
			sandboxes = append(sandboxes, sb)
		}
	}
	o.mu.Unlock()
	all := make([]node.Measurement, 0, len(sandboxes))
	for _, sb := range sandboxes {
		if err := ctx.Err(); err != nil {
			return nil, cove.E(cove.Unavailable, "orchestrator.Measure", err, "the request was given up; try again")
		}
		if m, ok := sb.measure(ctx); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// measure measures a sandbox that runs. Half a measurement is none: a figure
// that is missing would be taken for a small one.
func (s *sandbox) measure(ctx context.Context) (node.Measurement, bool) {
	s.mu.Lock()
	stopped := s.record.Frozen || s.conns == nil // or it ends
	open, usedAt := s.open, s.usedAt
	s.mu.Unlock()
	if stopped {
		return node.Measurement{}, false
	}
	load, err := s.o.cfg.Cgroups.Load(ctx, s.record.ID)
	at := s.o.cfg.Now()
	if err == nil {
		usage, uerr := s.process.Usage(s.dir())
		if err = uerr; err == nil {
			return node.Measurement{
				ID: s.record.ID, Execution: s.record.Execution, Resources: s.record.Resources, At: at,
				IdleAfter: s.record.IdleAfter, Open: open, UsedAt: usedAt,
				CPU: load.CPU, CountedOn: s.counted, Memory: usage.Memory, Cache: load.Cache, Disk: usage.Disk,
			}, true
		}
	}
	select {
	case <-s.process.Done(): // it ended meanwhile
	default:
		s.o.cfg.Log.Debug("a sandbox could not be measured", "sandbox", s.record.ID, "err", err)
	}
	return node.Measurement{}, false
}

// Use notes that a sandbox is used, from now until ctx is done. One that does not
// run is not noted.
func (o *Orchestrator) Use(ctx context.Context, id cove.SandboxID) {
	sb, ok := o.find(id)
	if !ok || sb.record.IdleAfter == 0 { // nobody asks
		return
	}
	sb.used(1)
	context.AfterFunc(ctx, func() { sb.used(-1) })
}

func (s *sandbox) used(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += by
	s.usedAt = s.o.cfg.Now()
}

// Load is what a cgroup has taken lately.
type Load struct {
	CPU   time.Duration // processor time since the group was made
	Cache int64         // bytes of page cache of files on disk
}
