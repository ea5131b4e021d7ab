// Package control decides: which template a sandbox starts from, on which node,
// how long it lives, and what the records say when a node and the store do not
// agree. It also sees that the installation's own template gets built.
//
// It knows no HTTP, no SQL and no host: it works through the contracts store
// and node. Package server wires it; api calls it through an interface of its
// own. Run owns its goroutines and waits for them.
package control

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/store"
)

// Config is what a Control is made of. The zero value of an optional field
// means the default written beside it.
type Config struct {
	Store  store.Store  // required
	Node   node.Node    // required
	Base   BaseBuilder  // required
	Tokens Tokens       // required
	Log    *slog.Logger // required

	Now        func() time.Time // time.Now
	Resources  cove.Resources   // of a sandbox of the base template; 2 CPUs, 1024 MiB, 10240 MiB
	MaxTimeout time.Duration    // longest life of a sandbox from its start; 0: no limit
	StartLimit time.Duration    // how long a start may take in all; 0: 60 s
}

// Tokens derives the secrets of a sandbox.
type Tokens interface {
	Envd(id cove.SandboxID) string
}

// Control decides about sandboxes and the base template.
type Control struct {
	cfg  Config
	base baseState

	reconciled chan struct{} // closed by Run once records and node agree
}

// New checks cfg and allocates. It starts nothing.
func New(cfg Config) (*Control, error) {
	if cfg.Store == nil || cfg.Node == nil || cfg.Base == nil || cfg.Tokens == nil || cfg.Log == nil {
		return nil, errors.New("control: a required part is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Resources == (cove.Resources{}) {
		cfg.Resources = cove.Resources{CPUs: 2, MemoryMB: 1024, DiskMB: 10240}
	}
	if cfg.StartLimit == 0 {
		cfg.StartLimit = 60 * time.Second
	}
	return &Control{cfg: cfg, base: baseState{settled: make(chan struct{})}, reconciled: make(chan struct{})}, nil
}

// Run brings records and node into agreement, keeps them there, and builds the
// base template if it is not there. It returns when ctx is done, or with an
// error if the records cannot be read.
func (c *Control) Run(ctx context.Context) error {
	var building sync.WaitGroup
	defer building.Wait()
	building.Go(func() { c.buildBase(ctx) })

	// First listen, then look: an end between the two is seen twice, not never.
	if err := c.cfg.Node.Subscribe(ctx, func(e node.Ended) { c.ended(ctx, e) }); err != nil {
		return err
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	close(c.reconciled)
	<-ctx.Done()
	return nil
}

// Ready is closed once records and node agree.
func (c *Control) Ready() <-chan struct{} { return c.reconciled }

// ended removes the record of a sandbox that a node says has ended.
func (c *Control) ended(ctx context.Context, e node.Ended) {
	// A kill removes the record itself, once the node has answered.
	if e.Reason == node.Killed {
		return
	}
	if err := c.cfg.Store.DeleteSandbox(context.WithoutCancel(ctx), e.ID, e.Execution); err != nil {
		c.cfg.Log.Error("the record of an ended sandbox could not be removed", "sandbox", e.ID, "err", err)
	}
}

// reconcile goes through the node's records after a start. A record of a
// sandbox that does not run goes; a sandbox that was being started or ended
// when the server died is ended, because nobody was told that it runs; a
// sandbox without a record is ended too.
func (c *Control) reconcile(ctx context.Context) error {
	records, err := c.cfg.Store.NodeSandboxes(ctx, cove.LocalNode)
	if err != nil {
		return err
	}
	list, err := c.cfg.Node.List(ctx)
	if err != nil {
		return err
	}
	running := map[cove.SandboxID]node.Running{}
	for _, r := range list {
		running[r.ID] = r
	}
	for _, sb := range records {
		r, ok := running[sb.ID]
		ok = ok && r.Execution == sb.Execution
		if ok && sb.State == cove.Running {
			delete(running, sb.ID)
			if !r.EndAt.Equal(sb.EndAt) { // the server died between the two; the record counts
				if err := c.cfg.Node.SetEnd(ctx, sb.ID, sb.Execution, sb.EndAt); err != nil && !cove.Is(err, cove.NotFound) {
					return err
				}
			}
			continue
		}
		if err := c.finish(ctx, sb); err != nil {
			return err
		}
		delete(running, sb.ID)
	}
	for _, r := range running {
		c.cfg.Log.Warn("ending a sandbox that has no record", "sandbox", r.ID)
		if err := c.cfg.Node.Kill(ctx, r.ID, r.Execution); err != nil {
			return err
		}
	}
	return nil
}

// finish ends a sandbox on its node and removes its record. It may be repeated.
func (c *Control) finish(ctx context.Context, sb cove.Sandbox) error {
	if err := c.cfg.Node.Kill(ctx, sb.ID, sb.Execution); err != nil {
		return err
	}
	return c.cfg.Store.DeleteSandbox(ctx, sb.ID, sb.Execution)
}
