// Package orchestrator runs the sandboxes of this host: it boots, ends and
// finds them again after a restart of the server. It implements node.Node.
//
// It knows no tenants and no HTTP, and it does not know how a network or an
// engine works: it owns the order in which the parts of a sandbox come and go.
// Package server wires it; only tests import it beside that.
//
// Each sandbox has one goroutine, which alone ends it, and which owns another
// that hears what the daemon inside says; Run waits for all of them. When the server stops, the goroutines end and the sandboxes stay.
//
// Lock order: Orchestrator.mu, then sandbox.mu. Neither is held during I/O.
package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// Config is what an Orchestrator is made of. The zero value of an optional
// field means the default written beside it.
type Config struct {
	Dir       string          // <data>/sandboxes; required
	Snapshots string          // <data>/snapshots; required
	Runtime   runtime.Runtime // required
	Network   Network         // required
	Cgroups   Cgroups         // required
	Images    Images          // required
	Daemon    Daemon          // required
	Stock     Stock           // required
	Log       *slog.Logger    // required

	Now func() time.Time // time.Now

	MaxSandboxes int           // 0: as many as the host bears
	Booting      int           // sandboxes booted at once; 0: 4
	BootTimeout  time.Duration // of one boot once it has its turn; 0: 30 s
	KillTimeout  time.Duration // of one teardown; 0: 30 s

	HealthTimeout time.Duration // what a daemon gets to answer before a pause; 0: 5 s
}

// Orchestrator runs the sandboxes of this host.
type Orchestrator struct {
	cfg     Config
	cpu     []string      // features of the host's processors, in order
	turn    chan struct{} // a boot holds one element
	adopted chan struct{} // closed by Run once the sandboxes of an earlier server are known

	mu        sync.Mutex
	ctx       context.Context             // Run's; nil before it. guarded by mu
	sandboxes map[cove.SandboxID]*sandbox // with those that are being booted; guarded by mu
	waits     sync.WaitGroup              // the sandboxes' goroutines

	events audience[node.Event]
	lines  audience[node.Line]
}

var _ node.Node = (*Orchestrator)(nil)

// New checks cfg and allocates. It starts nothing and touches no
// disk.
func New(cfg Config) (*Orchestrator, error) {
	if cfg.Dir == "" || cfg.Snapshots == "" || cfg.Runtime == nil || cfg.Network == nil || cfg.Cgroups == nil ||
		cfg.Images == nil || cfg.Daemon == nil || cfg.Stock == nil || cfg.Log == nil {
		return nil, errors.New("orchestrator: a required part is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Booting == 0 {
		cfg.Booting = 4
	}
	if cfg.BootTimeout == 0 {
		cfg.BootTimeout = 30 * time.Second
	}
	if cfg.KillTimeout == 0 {
		cfg.KillTimeout = 30 * time.Second
	}
	if cfg.HealthTimeout == 0 {
		cfg.HealthTimeout = 5 * time.Second
	}
	cpu, err := cpuFeatures()
	if err != nil {
		return nil, fmt.Errorf("orchestrator: what the processors can do: %w", err)
	}
	return &Orchestrator{
		cfg:       cfg,
		cpu:       cpu,
		turn:      make(chan struct{}, cfg.Booting),
		adopted:   make(chan struct{}),
		sandboxes: map[cove.SandboxID]*sandbox{},
	}, nil
}

// Run takes over the sandboxes an earlier server left, removes what is left of
// those that ended meanwhile, and then watches over all of them until ctx is
// done. The sandboxes stay.
func (o *Orchestrator) Run(ctx context.Context) error {
	o.mu.Lock()
	o.ctx = ctx
	o.mu.Unlock()
	if err := o.adopt(ctx); err != nil {
		return fmt.Errorf("taking over running sandboxes: %w", err)
	}
	close(o.adopted)
	<-ctx.Done()
	o.waits.Wait()
	return nil
}

// Ready is closed once the sandboxes of an earlier server are known.
func (o *Orchestrator) Ready() <-chan struct{} { return o.adopted }

// running waits until Run has taken over what was there, so that no answer is
// given about a half-known host.
func (o *Orchestrator) running(ctx context.Context) (context.Context, error) {
	select {
	case <-o.adopted:
	case <-ctx.Done():
		return nil, cove.E(cove.Unavailable, "orchestrator", ctx.Err(), "the server is still starting; try again")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return nil, cove.E(cove.Unavailable, "orchestrator", o.ctx.Err(), "the server is stopping; try again")
	}
	return o.ctx, nil
}

// enter counts what is being done among what Run waits for, unless Run is ending
// or has not begun.
func (o *Orchestrator) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx == nil || o.ctx.Err() != nil {
		return false
	}
	o.waits.Add(1)
	return true
}

// find returns a sandbox that runs.
func (o *Orchestrator) find(id cove.SandboxID) (*sandbox, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sb, ok := o.sandboxes[id]
	if !ok || sb.process == nil {
		return nil, false
	}
	return sb, true
}

func notHere(op string) error {
	return cove.E(cove.NotFound, op, nil, "the sandbox does not run")
}

// List implements node.Node.
func (o *Orchestrator) List(ctx context.Context) ([]node.Running, error) {
	if _, err := o.running(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []node.Running
	for _, sb := range o.sandboxes {
		if sb.process != nil {
			all = append(all, node.Running{ID: sb.record.ID, Execution: sb.record.Execution, EndAt: sb.end()})
		}
	}
	return all, nil
}

// Subscribe implements node.Node.
func (o *Orchestrator) Subscribe(ctx context.Context, happened func(node.Event)) error {
	o.events.join(ctx, happened)
	return nil
}

// Listen implements node.Node.
func (o *Orchestrator) Listen(ctx context.Context, said func(node.Line)) error {
	o.lines.join(ctx, said)
	return nil
}

// Kill implements node.Node.
func (o *Orchestrator) Kill(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error {
	if _, err := o.running(ctx); err != nil {
		return err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Execution != execution {
		return nil
	}
	return sb.kill(ctx)
}

// SetEnd implements node.Node.
func (o *Orchestrator) SetEnd(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, end time.Time) error {
	if _, err := o.running(ctx); err != nil {
		return err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Execution != execution {
		return notHere("orchestrator.SetEnd")
	}
	return sb.setEnd(end)
}

// Runs reports whether a sandbox runs here and can be used. It is cheap.
func (o *Orchestrator) Runs(id cove.SandboxID) bool {
	sb, ok := o.find(id)
	if !ok {
		return false
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return !sb.record.Frozen && !sb.record.Unused
}

// Dial implements node.Node.
func (o *Orchestrator) Dial(ctx context.Context, id cove.SandboxID, port uint16) (net.Conn, error) {
	if _, err := o.running(ctx); err != nil { // a restarted server must not deny what it is about to adopt
		return nil, err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Unused {
		return nil, notHere("orchestrator.Dial")
	}
	return sb.dial(ctx, port)
}
