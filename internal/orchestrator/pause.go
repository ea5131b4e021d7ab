package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/undo"
)

// pausing is a sandbox on its way into a snapshot. Its steps fill it in order.
type pausing struct {
	o       *Orchestrator
	sb      *sandbox
	how     node.Save
	saved   node.Saved
	partial string // where the snapshot is written
	undo    undo.Stack
}

// pauseSteps is how a sandbox is saved, in order. Until the last, the snapshot
// does not exist; whatever fails, and whenever the server dies, there is either
// the sandbox or a complete snapshot, and for a moment both.
var pauseSteps = []struct {
	name string
	do   func(*pausing, context.Context) error
}{
	{"daemon", (*pausing).daemon},
	{"room", (*pausing).room},
	{"engine", (*pausing).engine}, // only it can go on from what it writes
	{"directory", (*pausing).directory},
	{"announce", (*pausing).announce}, // a restarted server must know that it may stand still
	{"checkpoint", (*pausing).checkpoint},
	{"manifest", (*pausing).manifest},
	{"sync", (*pausing).sync},
	{"commit", (*pausing).commit},
}

// Pause implements node.Node.
func (o *Orchestrator) Pause(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, how node.Save) (node.Saved, error) {
	const op = "orchestrator.Pause"
	if _, err := o.running(ctx); err != nil {
		return node.Saved{}, err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Execution != execution {
		return node.Saved{}, notHere(op)
	}
	if !how.Snapshot.Valid() {
		return node.Saved{}, cove.E(cove.Invalid, op, nil, "invalid snapshot identifier")
	}
	sb.still.Lock()
	defer sb.still.Unlock()
	p := &pausing{o: o, sb: sb, how: how}
	begin := time.Now()
	for _, step := range pauseSteps {
		if err := step.do(p, ctx); err != nil {
			undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.cfg.KillTimeout)
			defer cancel()
			return node.Saved{}, errors.Join(fmt.Errorf("pause step %s: %w", step.name, err), p.undo.Unwind(undoCtx))
		}
	}
	o.cfg.Log.Debug("paused", "sandbox", id, "snapshot", how.Snapshot, "took", time.Since(begin).Round(100*time.Microsecond))
	return p.saved, nil
}

// daemon finds out whether the daemon answers. If it does not, its memory is
// saved with a note, unless the caller depends on it.
func (p *pausing) daemon(ctx context.Context) error {
	if p.sb.record.Unused {
		return nil // nobody asks how it is
	}
	probe, cancel := context.WithTimeout(ctx, p.o.cfg.HealthTimeout)
	defer cancel()
	err := p.o.cfg.Daemon.Health(probe, p.sb.dialDaemon)
	if err == nil {
		return nil
	}
	if p.how.Strict || p.how.FilesOnly {
		return cove.E(cove.Unavailable, "orchestrator.Pause", err, "the daemon in the sandbox does not answer; the sandbox goes on running")
	}
	p.saved.Unresponsive = true
	return nil
}

// slack is what must stay free on the disk after a pause, in bytes.
const slack = 32 << 20

// room refuses a pause that the disk cannot hold, before anything is stopped.
// What the sandbox wrote to its disk counts only as far as it is in memory; a
// pause that runs out of disk all the same fails later and lets it go on.
func (p *pausing) room(ctx context.Context) error {
	const op = "orchestrator.Pause"
	need, err := p.o.cfg.Cgroups.Memory(ctx, p.sb.record.ID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.o.cfg.Snapshots, 0o700); err != nil {
		return hostFailure(op, err)
	}
	free, err := freeBytes(p.o.cfg.Snapshots)
	if err != nil {
		return hostFailure(op, err)
	}
	if need+slack > free {
		return cove.E(cove.NoSpace, op, nil,
			"the server's disk has no room for the sandbox's memory (%d MiB of %d MiB are free); it goes on running", free>>20, (need+slack)>>20)
	}
	if most := p.how.Most; most > 0 && need > most {
		return cove.E(cove.Exhausted, op, nil,
			"the snapshot would take about %d MiB, and %d MiB are left of your team's quota: delete snapshots or paused sandboxes; it goes on running", need>>20, most>>20)
	}
	return nil
}

func (p *pausing) engine(ctx context.Context) error {
	return p.o.cfg.Stock.KeepEngine(ctx, p.sb.process.Handle().Engine)
}

func (p *pausing) directory(context.Context) error {
	p.partial = p.o.partialDir(p.how.Snapshot)
	p.undo.Add("directory", func(context.Context) error { return os.RemoveAll(p.partial) })
	if err := os.Mkdir(p.partial, 0o700); err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	return nil
}

func (p *pausing) announce(context.Context) error {
	p.undo.Add("announce", func(context.Context) error { return p.sb.setFrozen(false) })
	return p.sb.setFrozen(true)
}

func (p *pausing) checkpoint(ctx context.Context) error {
	if err := p.sb.process.Checkpoint(ctx, p.partial, p.how.FilesOnly); err != nil {
		return err
	}
	p.undo.Add("checkpoint", p.sb.process.Thaw)
	return nil
}

func (p *pausing) manifest(context.Context) error {
	p.sb.mu.Lock()
	r := p.sb.record
	p.sb.mu.Unlock()
	heard, _ := p.sb.place()
	return p.o.saveManifest(p.partial, manifest{
		Format: manifestFormat, Snapshot: p.how.Snapshot, Sandbox: r.ID, Execution: r.Execution, Identity: r.Identity,
		FilesOnly: p.how.FilesOnly, Build: r.Build, Tools: r.Tools, Engine: p.sb.process.Handle().Engine, CPU: p.o.cpu,
		Resources: r.Resources, Created: p.o.cfg.Now().UTC(), Heard: heard,
	})
}

// sync makes the snapshot's files durable, the large one beside the others.
func (p *pausing) sync(context.Context) error {
	entries, err := os.ReadDir(p.partial)
	if err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	var files errgroup.Group
	for _, e := range entries {
		file := filepath.Join(p.partial, e.Name())
		size, err := allocated(file)
		if err != nil {
			return hostFailure("orchestrator.Pause", err)
		}
		p.saved.Bytes += size
		files.Go(func() error { return syncPath(file) })
	}
	if err := files.Wait(); err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	if err := syncPath(p.partial); err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	return nil
}

func (p *pausing) commit(context.Context) error {
	if err := os.Rename(p.partial, p.o.snapshotDir(p.how.Snapshot)); err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	p.undo.Add("commit", func(context.Context) error { return os.RemoveAll(p.o.snapshotDir(p.how.Snapshot)) })
	if err := syncPath(p.o.cfg.Snapshots); err != nil {
		return hostFailure("orchestrator.Pause", err)
	}
	return nil
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (s *sandbox) setFrozen(frozen bool) error {
	s.mu.Lock()
	s.record.Frozen = frozen
	s.mu.Unlock()
	return s.save()
}

// doubtLimit is how long a daemon gets to show that its sandbox runs.
const doubtLimit = 2 * time.Second

// Thaw implements node.Node.
func (o *Orchestrator) Thaw(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error {
	const op = "orchestrator.Thaw"
	if _, err := o.running(ctx); err != nil {
		return err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Execution != execution {
		return notHere(op)
	}
	sb.still.Lock()
	defer sb.still.Unlock()
	sb.mu.Lock()
	frozen := sb.record.Frozen
	sb.mu.Unlock()
	if !frozen {
		return nil
	}
	if sb.doubt {
		// A server died between the note that it will be stopped and the note
		// that it was let go on. The engine cannot be asked; the daemon can.
		probe, cancel := context.WithTimeout(ctx, doubtLimit)
		defer cancel()
		if o.cfg.Daemon.Health(probe, sb.dialDaemon) == nil {
			sb.doubt = false
			return sb.setFrozen(false)
		}
	}
	if err := sb.process.Thaw(ctx); err != nil {
		return err
	}
	sb.doubt = false
	return sb.setFrozen(false)
}
