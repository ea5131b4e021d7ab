package orchestrator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/undo"
)

// booting is a sandbox on its way to life. Its steps fill it in order.
type booting struct {
	o    *Orchestrator
	sb   *sandbox
	spec cove.Spec
	undo undo.Stack

	snapshot *manifest // what to go on from; nil: a fresh start
	root     string
	tools    runtime.Image
	dirs     []string
	ready    *os.File // the daemon's output; closed by the daemon step
	process  runtime.Process
}

// bootSteps is how a sandbox comes to be, in order. Each step does one thing
// and adds to b.undo what takes it back; its name labels its error.
var bootSteps = []struct {
	name string
	do   func(*booting, context.Context) error
}{
	{"images", (*booting).images},
	{"directory", (*booting).directory},
	{"network", (*booting).network},
	{"cgroup", (*booting).cgroup},
	{"record", (*booting).plan}, // before the engine: after a crash, what is recorded is cleared
	{"runtime", (*booting).runtime},
	{"commit", (*booting).commit}, // from here on a restarted server takes the sandbox over
	{"daemon", (*booting).daemon},
	{"identity", (*booting).identity},
	{"start command", (*booting).start},
}

// Create implements node.Node.
func (o *Orchestrator) Create(ctx context.Context, spec cove.Spec) error {
	const op = "orchestrator.Create"
	running, err := o.running(ctx)
	if err != nil {
		return err
	}
	sb := newSandbox(o, spec)
	if err := o.reserve(op, sb); err != nil {
		return err
	}
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		o.drop(sb)
		return cove.E(cove.Unavailable, op, ctx.Err(), "the server is busy starting other sandboxes; try again")
	}
	if !o.enter() {
		o.drop(sb)
		return cove.E(cove.Unavailable, op, nil, "the server is stopping; try again")
	}
	defer o.waits.Done()
	// A boot ends with its request or with the server, whichever is first.
	ctx, cancel := context.WithTimeoutCause(ctx, o.cfg.BootTimeout, errors.New("boot timeout"))
	defer cancel()
	stop := context.AfterFunc(running, cancel)
	defer stop()
	if err := o.boot(ctx, sb, spec); err != nil {
		o.drop(sb)
		return err
	}
	return nil
}

// reserve takes the sandbox's place, so that no second boot of it begins.
func (o *Orchestrator) reserve(op string, sb *sandbox) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.sandboxes[sb.record.ID]; ok {
		return cove.E(cove.Conflict, op, nil, "the sandbox runs already")
	}
	if limit := o.cfg.MaxSandboxes; limit > 0 && len(o.sandboxes) >= limit {
		return cove.E(cove.Exhausted, op, nil, "the server runs its maximum of %d sandboxes: end one first, or raise the limit", limit)
	}
	o.sandboxes[sb.record.ID] = sb
	return nil
}

func (o *Orchestrator) drop(sb *sandbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sandboxes[sb.record.ID] == sb {
		delete(o.sandboxes, sb.record.ID)
	}
}

func (o *Orchestrator) boot(ctx context.Context, sb *sandbox, spec cove.Spec) error {
	b := &booting{o: o, sb: sb, spec: spec}
	begin := time.Now()
	var times []any
	for _, step := range bootSteps {
		stepBegin := time.Now()
		err := step.do(b, ctx)
		times = append(times, step.name, time.Since(stepBegin).Round(100*time.Microsecond))
		if err == nil {
			continue
		}
		if ctx.Err() != nil && cove.KindOf(err) == cove.Internal {
			err = cove.E(cove.DeadlineExceeded, "orchestrator.boot", err, "the sandbox did not start in time; try again")
		}
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.cfg.KillTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("boot step %s: %w", step.name, err), b.undo.Unwind(undoCtx))
	}
	o.cfg.Log.Debug("booted", "sandbox", spec.ID, "took", time.Since(begin).Round(100*time.Microsecond), slog.Group("steps", times...))
	sb.begin(b.process, b.undo.Keep())
	return nil
}

func (b *booting) images(ctx context.Context) (err error) {
	r, tools := &b.sb.record, ""
	if b.spec.Snapshot != "" {
		if b.snapshot, err = b.o.loadManifest(b.spec.Snapshot); err != nil {
			return err
		}
		// The engine goes on only with the images it stopped with.
		r.Build, r.Identity, tools = b.snapshot.Build, b.snapshot.Identity, b.snapshot.Tools
		b.sb.heard = b.snapshot.heardBy(b.spec.ID)
		if b.snapshot.FilesOnly { // the daemon is started anew, and may be a newer one
			r.Identity, tools = b.spec.ID, ""
		}
	}
	if b.root, err = b.o.cfg.Images.Root(ctx, r.Build); err != nil {
		return err
	}
	b.tools, err = b.o.cfg.Images.Tools(ctx, tools)
	r.Tools = filepath.Base(b.tools.Source)
	n := &needs{build: r.Build, tools: r.Tools}
	if b.snapshot != nil {
		n.engine = b.snapshot.Engine
	}
	b.sb.needs.Store(n)
	return err
}

func (b *booting) directory(context.Context) error {
	b.undo.Add("directory", func(context.Context) error { return b.sb.removeDir(b.process) })
	if err := os.MkdirAll(b.sb.dir(), 0o700); err != nil {
		return hostFailure("orchestrator.directory", err)
	}
	return nil
}

func (b *booting) network(ctx context.Context) error {
	slot, err := b.o.cfg.Network.Acquire(ctx, b.spec.Internet)
	if err != nil {
		return err
	}
	b.undo.Add("network", slot.Release)
	b.sb.slot = slot
	b.sb.record.Slot = slot.Index()
	return nil
}

func (b *booting) cgroup(ctx context.Context) (err error) {
	id := b.spec.ID
	b.undo.Add("cgroup", func(ctx context.Context) error { return b.o.cfg.Cgroups.Remove(ctx, id) })
	limits := b.spec.Resources
	limits.MemoryMB += cove.EngineMB
	b.sb.counted = b.o.cfg.Now()
	b.dirs, err = b.o.cfg.Cgroups.Create(ctx, id, limits)
	return err
}

func (b *booting) plan(context.Context) error { return b.sb.save() }

func (b *booting) runtime(ctx context.Context) (err error) {
	network := b.sb.slot.Runtime()
	restore, engine, filesOnly := "", "", false
	if b.snapshot != nil {
		restore, engine, filesOnly = b.o.snapshotDir(b.spec.Snapshot), b.snapshot.Engine, b.snapshot.FilesOnly
	}
	args, env := b.o.cfg.Daemon.Command(b.spec, network.Gateway) // the gateway answers DNS
	var output *os.File                                          // a restored daemon has nothing to say: it is ready
	if b.snapshot == nil || filesOnly {
		if b.ready, output, err = os.Pipe(); err != nil {
			return hostFailure("orchestrator.runtime", err)
		}
		defer output.Close()
		b.undo.Add("output", func(context.Context) error {
			if err := b.ready.Close(); !errors.Is(err, os.ErrClosed) {
				return err
			}
			return nil
		})
	}
	b.process, err = b.o.cfg.Runtime.Start(ctx, runtime.Spec{
		ID: string(b.spec.ID), Dir: b.sb.dir(), Rootfs: b.root, Images: []runtime.Image{b.tools},
		Args: args, Env: env, Hostname: string(b.spec.ID),
		CPUs: b.spec.Resources.CPUs, MemoryBytes: int64(b.spec.Resources.MemoryMB) << 20,
		DiskBytes: int64(b.spec.Resources.DiskMB) << 20, Cgroups: b.dirs, Network: &network, Output: output,
		Restore: restore, FilesOnly: filesOnly, Engine: engine,
	})
	if err != nil {
		if b.snapshot != nil && cove.KindOf(err) == cove.Internal {
			err = b.o.unfit(b.snapshot, err)
		}
		return err
	}
	b.undo.Add("runtime", b.process.Kill)
	return nil
}

func (b *booting) commit(context.Context) error {
	handle := b.process.Handle()
	b.sb.record.Handle = &handle
	return b.sb.save()
}

// maxOutput is how much of a daemon's output is read while it starts. The code
// inside is not trusted, not even this early.
const maxOutput = 16 << 10

// daemon waits until the daemon says that it can be reached. Nothing is polled:
// the line arrives through the pipe that is its output, and an early end of the
// sandbox closes the pipe.
func (b *booting) daemon(ctx context.Context) error {
	const op = "orchestrator.daemon"
	if b.ready == nil {
		return nil
	}
	defer b.ready.Close()
	stop := context.AfterFunc(ctx, func() { _ = b.ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var said strings.Builder
	lines := bufio.NewScanner(io.LimitReader(b.ready, maxOutput))
	for lines.Scan() {
		if lines.Text() == b.o.cfg.Daemon.ReadyLine() {
			return nil
		}
		fmt.Fprintln(&said, lines.Text())
	}
	if ctx.Err() != nil {
		return cove.E(cove.DeadlineExceeded, op, fmt.Errorf("%w; it said: %q", context.Cause(ctx), said.String()),
			"the sandbox did not start in time; try again")
	}
	return cove.E(cove.Internal, op, fmt.Errorf("the daemon ended (%v) and said: %q", lines.Err(), said.String()),
		"the sandbox ended while it was starting; the server's log says why")
}

func (b *booting) identity(ctx context.Context) error {
	if b.spec.Unused {
		return nil
	}
	return b.o.cfg.Daemon.Init(ctx, b.sb.record.Identity, b.spec, b.sb.dialDaemon)
}

// Bounds of the start command.
const (
	startLimit   = 10 * time.Second // how long it may take until it runs
	maxComplaint = 1 << 10          // bytes that are told if it cannot be begun
)

// start begins the template's start command again where a snapshot brought the
// files of a sandbox and not its processes: with the memory it runs already, and
// what starts afresh has none. Nobody waits until it is of use, and a sandbox
// whose command cannot be begun is there all the same: only inside can its owner
// put that right.
func (b *booting) start(ctx context.Context) error {
	if b.snapshot == nil || !b.snapshot.FilesOnly || b.spec.Unused || b.spec.Start.Command == "" {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err := b.o.cfg.Daemon.Begin(limited, b.spec, b.sb.dialDaemon)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil { // the whole boot ends
		return err
	}
	b.o.cfg.Log.Debug("the start command of a sandbox could not be begun", "sandbox", b.spec.ID, "err", err)
	_, words := cove.Describe(err)
	b.sb.tell(Said{Level: cove.LogError, Logger: "envd", Message: clip("the start command could not be run: "+words, maxComplaint)})
	return nil
}

func (s *sandbox) dialDaemon(ctx context.Context) (net.Conn, error) {
	return s.slot.Dial(ctx, s.o.cfg.Daemon.Port())
}

func (s *sandbox) dir() string { return filepath.Join(s.o.cfg.Dir, string(s.record.ID)) }
