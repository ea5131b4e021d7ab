package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/undo"
)

// adopt goes through the directories an earlier server left. What still runs is
// watched again; of the rest, everything is removed. One broken sandbox does
// not keep the others from being adopted.
func (o *Orchestrator) adopt(ctx context.Context) error {
	if err := os.MkdirAll(o.cfg.Dir, 0o700); err != nil {
		return hostFailure("orchestrator.adopt", err)
	}
	entries, err := os.ReadDir(o.cfg.Dir)
	if err != nil {
		return hostFailure("orchestrator.adopt", err)
	}
	if err := o.clearPartial(); err != nil {
		return err
	}
	slots, groups := map[int]bool{}, map[cove.SandboxID]bool{}
	for _, entry := range entries {
		id := cove.SandboxID(entry.Name())
		if !entry.IsDir() || !id.Valid() {
			continue
		}
		sb, err := o.adoptOne(ctx, filepath.Join(o.cfg.Dir, entry.Name()))
		if err != nil {
			o.cfg.Log.Warn("a sandbox of an earlier run is gone", "sandbox", id, "err", err)
			if err := o.clear(ctx, id); err != nil {
				o.cfg.Log.Error("what is left of it could not be removed", "sandbox", id, "err", err)
			}
			continue
		}
		o.cfg.Log.Info("took over a running sandbox", "sandbox", id, "ends", sb.end())
		slots[sb.record.Slot], groups[id] = true, true
	}
	// What cannot be removed is no reason not to serve.
	if err := o.clearGroups(ctx, groups); err != nil {
		o.cfg.Log.Error("cgroups of earlier sandboxes could not be removed", "err", err)
	}
	if err := o.cfg.Network.Sweep(ctx, slots); err != nil {
		o.cfg.Log.Error("network slots of earlier sandboxes could not be removed", "err", err)
	}
	return nil
}

// clearGroups removes cgroups that belong to no sandbox any more, with the
// engines that may still be in them: their directories may be gone.
func (o *Orchestrator) clearGroups(ctx context.Context, keep map[cove.SandboxID]bool) error {
	groups, err := o.cfg.Cgroups.List(ctx)
	for _, id := range groups {
		if !keep[id] {
			err = errors.Join(err, o.clear(ctx, id))
		}
	}
	return err
}

// adoptOne watches over a sandbox again, or says why it cannot.
func (o *Orchestrator) adoptOne(ctx context.Context, dir string) (_ *sandbox, err error) {
	r, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("its record: %w", err)
	}
	if r.Handle == nil {
		return nil, errors.New("the server was killed while it started it")
	}
	process, err := o.cfg.Runtime.Adopt(ctx, *r.Handle)
	if err != nil {
		return nil, err
	}
	slot, err := o.adoptSlot(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("its network: %w", err)
	}
	sb := newSandbox(o, cove.Spec{ID: r.ID, Execution: r.Execution, Internet: r.Internet})
	sb.record, sb.slot, sb.doubt = r, slot, r.Frozen
	// What the earlier server heard last is not known, and to write it down with
	// each line would cost more than what is said meanwhile is worth.
	sb.heard = fromNow
	sb.needs.Store(&needs{build: r.Build, tools: r.Tools, engine: r.Handle.Engine})

	var undo undo.Stack // in the order in which boot adds them
	undo.Add("directory", func(context.Context) error { return sb.removeDir(process) })
	undo.Add("network", slot.Release)
	undo.Add("cgroup", func(ctx context.Context) error { return o.cfg.Cgroups.Remove(ctx, r.ID) })
	undo.Add("runtime", process.Kill)
	o.mu.Lock()
	o.sandboxes[r.ID] = sb
	o.mu.Unlock()
	sb.begin(process, undo.Keep())
	return sb, nil
}

// A slot that cannot be adopted costs a sandbox its life, so that is tried
// adoptTries times, unless there is no such slot.
const (
	adoptTries = 5
	adoptWait  = 100 * time.Millisecond
)

func (o *Orchestrator) adoptSlot(ctx context.Context, r record) (slot Slot, err error) {
	for try := 1; ; try++ {
		slot, err = o.cfg.Network.Adopt(ctx, r.Slot, r.Internet)
		if err == nil || cove.Is(err, cove.NotFound) || try == adoptTries {
			return slot, err
		}
		o.cfg.Log.Warn("a running sandbox's network could not be taken over yet", "sandbox", r.ID, "err", err)
		select {
		case <-time.After(adoptWait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// clear removes what is left of a sandbox that does not run: its processes, its
// cgroup and its directory. Its slot goes with the sweep.
func (o *Orchestrator) clear(ctx context.Context, id cove.SandboxID) error {
	return errors.Join(
		o.cfg.Runtime.Clear(ctx, string(id)),
		o.cfg.Cgroups.Remove(ctx, id),
		os.RemoveAll(filepath.Join(o.cfg.Dir, string(id))),
	)
}
