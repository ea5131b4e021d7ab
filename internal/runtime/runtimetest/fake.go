package runtimetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// Host is the machine on which fakes run their sandboxes. Several Fakes may
// share one, as several lives of a server share a machine.
type Host struct {
	// Layer, if set, writes what a sandbox of the given identifier exports.
	// Nil: Layer.
	Layer func(id string, to io.Writer) error

	mu        sync.Mutex
	nextPID   int
	processes map[int]*fakeProcess // guarded by mu
}

// NewHost returns a machine on which nothing runs.
func NewHost() *Host { return &Host{nextPID: 1, processes: map[int]*fakeProcess{}} }

// Running returns how many sandboxes of the given identifier run.
func (h *Host) Running(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, p := range h.processes {
		if p.handle.ID == id {
			n++
		}
	}
	return n
}

// Frozen reports whether a sandbox of the given identifier runs and is stopped,
// for good or for an export.
func (h *Host) Frozen(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.processes {
		if p.handle.ID == id && (p.frozen || p.exports > 0) {
			return true
		}
	}
	return false
}

// Crash ends the sandbox with the given identifier as its own fault would.
func (h *Host) Crash(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for pid, p := range h.processes {
		if p.handle.ID == id {
			delete(h.processes, pid)
			close(p.done)
		}
	}
}

// Fake is a runtime.Runtime whose sandboxes are entries of a map. Their init
// writes Ready and waits.
type Fake struct {
	Host *Host
	// Ready is what init writes. Empty: "ready\n".
	Ready string
	// Engine is the version of its engine. Empty: "engine 1".
	Engine string
	// Engines are other versions that it has.
	Engines []string
	// Fail, if set, is asked before each start; its error is the start's.
	Fail func(runtime.Spec) error
}

var _ runtime.Runtime = (*Fake)(nil)

// Start implements runtime.Runtime. A spec without a root file system fails.
func (f *Fake) Start(ctx context.Context, spec runtime.Spec) (runtime.Process, error) {
	const op = "runtimetest.Start"
	if ctx.Err() != nil {
		return nil, cove.E(cove.DeadlineExceeded, op, ctx.Err(), "the sandbox did not start in time; try again")
	}
	if spec.Rootfs == "" {
		return nil, cove.E(cove.Internal, op, nil, "the sandbox could not be started")
	}
	engine := cmp.Or(f.Engine, "engine 1")
	if wanted := cmp.Or(spec.Engine, engine); wanted != engine {
		if !slices.Contains(f.Engines, wanted) {
			return nil, cove.E(cove.NotFound, op, nil, "the engine %q that wrote the snapshot is not on this server", wanted)
		}
		engine = wanted
	}
	if f.Fail != nil {
		if err := f.Fail(spec); err != nil {
			return nil, err
		}
	}
	if spec.Restore != "" {
		kind, err := os.ReadFile(filepath.Join(spec.Restore, checkpointFile))
		if err != nil || string(kind) != fmt.Sprint(spec.FilesOnly) {
			return nil, cove.E(cove.Internal, op, err, "the sandbox could not be started")
		}
	}
	if (spec.Restore == "" || spec.FilesOnly) && spec.Output != nil {
		ready := f.Ready
		if ready == "" {
			ready = "ready\n"
		}
		if _, err := spec.Output.WriteString(ready); err != nil {
			return nil, err
		}
	}
	h := f.Host
	h.mu.Lock()
	defer h.mu.Unlock()
	pid := h.nextPID
	h.nextPID++
	p := &fakeProcess{host: h, done: make(chan struct{}), handle: runtime.Handle{
		Engine: engine,
		ID:     spec.ID, PID: pid, Start: strconv.Itoa(pid), Socket: "socket-" + spec.ID,
	}}
	h.processes[pid] = p
	return p, nil
}

// Adopt implements runtime.Runtime.
func (f *Fake) Adopt(_ context.Context, handle runtime.Handle) (runtime.Process, error) {
	f.Host.mu.Lock()
	defer f.Host.mu.Unlock()
	p, ok := f.Host.processes[handle.PID]
	if !ok || p.handle.Start != handle.Start {
		return nil, cove.E(cove.NotFound, "runtimetest.Adopt", errors.New("no such process"), "the sandbox has ended")
	}
	return p, nil
}

// Clear implements runtime.Runtime.
func (f *Fake) Clear(_ context.Context, id string) error {
	f.Host.Crash(id)
	return nil
}

type fakeProcess struct {
	host    *Host
	handle  runtime.Handle
	done    chan struct{} // closed when it leaves host.processes
	frozen  bool          // guarded by host.mu
	exports int           // under way; guarded by host.mu
}

// checkpointFile is what a fake checkpoint consists of.
const checkpointFile = "state"

func (p *fakeProcess) Checkpoint(ctx context.Context, dir string, filesOnly bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	select {
	case <-p.done:
		return cove.E(cove.Internal, "runtimetest.Checkpoint", nil, "the sandbox has ended")
	default:
	}
	if err := os.WriteFile(filepath.Join(dir, checkpointFile), fmt.Append(nil, filesOnly), 0o600); err != nil {
		return err
	}
	p.frozen = true
	return nil
}

func (p *fakeProcess) Thaw(context.Context) error {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if !p.frozen {
		return cove.E(cove.Internal, "runtimetest.Thaw", nil, "the sandbox is not stopped")
	}
	p.frozen = false
	return nil
}

// FakeUsage is what every fake sandbox takes.
func FakeUsage() runtime.Usage { return runtime.Usage{Memory: 10 << 20, Disk: 1 << 20} }

func (p *fakeProcess) Usage(string) (runtime.Usage, error) {
	select {
	case <-p.done:
		return runtime.Usage{}, cove.E(cove.NotFound, "runtimetest.Usage", nil, "the sandbox has ended")
	default:
		return FakeUsage(), nil
	}
}

func (p *fakeProcess) Handle() runtime.Handle { return p.handle }

func (p *fakeProcess) Done() <-chan struct{} { return p.done }

func (p *fakeProcess) Kill(context.Context) error {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if _, ok := p.host.processes[p.handle.PID]; ok {
		delete(p.host.processes, p.handle.PID)
		close(p.done)
	}
	return nil
}
