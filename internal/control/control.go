// Package control decides: which template a sandbox starts from, on which node,
// how long it lives, and what the records say when a node and the store do not
// agree. It also sees that the installation's own template gets built.
//
// It knows no HTTP, no SQL and no host: it works through the contracts store
// and node. Package server wires it; api calls it through an interface of its
// own. Run owns its goroutines and waits for them.
package control

import (
	"cmp"
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
	Store     store.Store     // required
	Node      node.Node       // required
	Base      BaseBuilder     // required
	Templates TemplateBuilder // required
	Uploads   Uploads         // required
	Tokens    Tokens          // required
	Log       *slog.Logger    // required

	EnvdVersion string // of the daemon in new sandboxes

	Now        func() time.Time // time.Now
	Resources  cove.Resources   // of a sandbox of the base template; 2 CPUs, 1024 MiB, 10240 MiB
	MaxTimeout time.Duration    // longest life of a sandbox from its start; 0: no limit
	StartLimit time.Duration    // how long a start may take in all; 0: 60 s

	MostResources cove.Resources // what one sandbox may have; 64 CPUs, 256 GiB, 1 TiB
	Builds        int            // template builds that are done at once; 0: 2
	TeamBuilds    int            // template builds of a team that may be under way; 0: 20
	BuildLimit    time.Duration  // how long one may take; 0: 2 h
	WaitLimit     time.Duration  // how long one may wait to be begun; 0: 40 min
	LayerBytes    int64          // what layers of builds may take on disk; 0: 20 GiB

	TeamSandboxes     int   // how many sandboxes of a team may run; 0: no limit
	TeamSnapshotBytes int64 // what a team's snapshots may take on disk; 0: no limit

	SampleEvery      time.Duration // how often what runs is measured; 0: 5 s
	MetricsRetention time.Duration // how long what was measured is kept; 0: 7 days
	LogRetention     time.Duration // how long logs of sandboxes are kept; 0: 7 days
}

// Tokens derives the secrets of a sandbox.
type Tokens interface {
	Envd(id cove.SandboxID) string
	Equal(a, b string) bool // takes as long for any two
	// Upload returns what permits to upload a team's files of a hash until then.
	Upload(team cove.TeamID, hash string, until time.Time) string
	// Uploader returns what a token permits, if it is ours and still good.
	Uploader(token string, now time.Time) (team cove.TeamID, hash string, ok bool)
}

// Control decides about sandboxes and the base template.
type Control struct {
	cfg  Config
	base baseState

	reconciled chan struct{} // closed by Run once records and node agree

	admission sync.Mutex // held while a team's sandboxes are counted and one is added

	mu   sync.Mutex
	ops  map[cove.SandboxID]*operation // what is being done to a sandbox; guarded by mu
	held map[cove.SnapshotID]int       // by how many each is held: what is being made and has no record yet; guarded by mu

	builds builds
	swept  chan struct{} // has an element if the disk is to be swept now

	work sync.WaitGroup // operations and builds; Run waits for them

	journal  journal  // what is still to be written
	speakers speakers // who has said something
}

// New checks cfg and allocates. It starts nothing.
func New(cfg Config) (*Control, error) {
	if cfg.Store == nil || cfg.Node == nil || cfg.Base == nil || cfg.Templates == nil || cfg.Uploads == nil || cfg.Tokens == nil || cfg.Log == nil {
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
	const week = 7 * 24 * time.Hour
	cfg.SampleEvery = cmp.Or(cfg.SampleEvery, 5*time.Second)
	cfg.MetricsRetention, cfg.LogRetention = cmp.Or(cfg.MetricsRetention, week), cmp.Or(cfg.LogRetention, week)
	if cfg.MostResources == (cove.Resources{}) {
		cfg.MostResources = cove.Resources{CPUs: 64, MemoryMB: 256 << 10, DiskMB: 1 << 20}
	}
	cfg.Builds, cfg.TeamBuilds, cfg.LayerBytes = cmp.Or(cfg.Builds, 2), cmp.Or(cfg.TeamBuilds, 20), cmp.Or(cfg.LayerBytes, 20<<30)
	cfg.BuildLimit, cfg.WaitLimit = cmp.Or(cfg.BuildLimit, 2*time.Hour), cmp.Or(cfg.WaitLimit, 40*time.Minute)
	c := &Control{
		cfg: cfg, base: baseState{settled: make(chan struct{})}, reconciled: make(chan struct{}), swept: make(chan struct{}, 1),
		ops: map[cove.SandboxID]*operation{}, held: map[cove.SnapshotID]int{},
	}
	c.builds = builds{c: c, turn: make(chan struct{}, cfg.Builds), running: map[cove.BuildID]*underWay{}}
	return c, nil
}

// Run brings records and node into agreement, keeps them there, and builds the
// base template if it is not there. It returns when ctx is done, or with an
// error if the records cannot be read. Meanwhile it keeps account of what the
// sandboxes use.
func (c *Control) Run(ctx context.Context) error {
	var building, metering sync.WaitGroup
	defer metering.Wait() // the last: what the others note is written too
	metered, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer building.Wait()
	defer c.work.Wait()
	defer c.builds.close()
	building.Go(func() { c.buildBase(ctx) })

	// First listen, then look: an end between the two is seen twice, not never.
	if err := c.cfg.Node.Subscribe(ctx, func(e node.Event) { c.happened(ctx, e) }); err != nil {
		return err
	}
	if err := c.cfg.Node.Listen(ctx, func(l node.Line) { c.said(ctx, l) }); err != nil {
		return err
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	c.builds.open(ctx)
	close(c.reconciled)
	metering.Go(func() { c.meter(metered, ctx.Done()) })
	c.sweep(ctx)
	return nil
}

// Ready is closed once records and node agree.
func (c *Control) Ready() <-chan struct{} { return c.reconciled }

// ready waits until records and node agree. What is changed before would be
// changed back by reconcile, which has read the records already.
func (c *Control) ready(ctx context.Context) error {
	select {
	case <-c.reconciled:
		return nil
	case <-ctx.Done():
		return cove.E(cove.Unavailable, "control.ready", ctx.Err(), "the server is still starting; try again")
	}
}

// happened acts on what a node tells.
func (c *Control) happened(ctx context.Context, e node.Event) {
	if e.What != node.Due {
		c.speakers.forget(e.Execution)
	}
	switch e.What {
	case node.Killed:
		// Whoever asked for it sees to the record.
	case node.Due:
		c.due(ctx, e)
	default:
		ctx = context.WithoutCancel(ctx)
		sb, err := c.cfg.Store.SandboxByID(ctx, e.ID)
		if err == nil && (sb.State == cove.Pausing || sb.State == cove.Resuming) {
			return // there may be a snapshot to go on from: the operation sees to it
		}
		c.noteEnd(ctx, e)
		if err := c.cfg.Store.DeleteSandbox(ctx, e.ID, e.Execution); err != nil {
			c.cfg.Log.Error("the record of an ended sandbox could not be removed", "sandbox", e.ID, "err", err)
		}
	}
}
