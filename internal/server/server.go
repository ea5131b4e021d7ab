// Package server is the composition root: it reads a Config, builds the parts
// that make a server, and runs them.
//
// It decides nothing itself; what looks like a decision here is the choice of a
// part. It may import everything but cli. Its goroutines are the actors of
// package run and the HTTP servers' own.
package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/api"
	"github.com/cove-sandbox/cove/internal/auth"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/network"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/proxy"
	"github.com/cove-sandbox/cove/internal/run"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runsc"
	"github.com/cove-sandbox/cove/internal/store"
	"github.com/cove-sandbox/cove/internal/store/sqlite"
)

// Config is what a server is made of. The zero value of an optional field means
// the default written beside it.
type Config struct {
	DataDir    string       // required, absolute: everything the server keeps
	Listen     string       // required: address of the API and the edge
	EdgeListen string       // address for the edge alone, beside Listen; empty: none
	Engine     string       // required: path of cove-runsc
	Envd       string       // required: path of cove-envd
	Log        *slog.Logger // required

	// Progress is told of the base template's build, for the operator to see.
	Progress func(builder.Progress) // nil: nobody is
	// Started is told, once, that requests are served, and where.
	Started func(addr net.Addr) // nil: nobody is

	WarmSlots    int           // network slots kept ready
	MaxSandboxes int           // 0: as many as the host bears
	MaxTimeout   time.Duration // 0: no limit

	TeamSandboxes   int   // sandboxes of a team that run at a time; 0: no limit
	TeamSnapshotsMB int64 // MiB of disk that a team's snapshots may take; 0: no limit

	Resources cove.Resources // of sandboxes of the base template; zero: control's default

	Images     Images        // that templates begin with
	Builds     int           // template builds that are done at once; 0: control's default
	TeamBuilds int           // template builds of a team that may be under way; 0: control's default
	BuildLimit time.Duration // how long one may take; 0: control's default
	ReadyLimit time.Duration // how long a start command may take to become ready; 0: the builder's default

	MetricsRetention time.Duration // of what sandboxes used; 0: control's default
	LogRetention     time.Duration // of what became of them; 0: control's default
}

// lockFile is the file in the data directory that a running server holds.
const lockFile = "cove.lock"

// Server is one server. It runs once.
type Server struct {
	cfg Config

	unlock   func() error
	store    store.Store
	listener net.Listener
	edge     net.Listener // nil without EdgeListen

	network      *network.Pool
	groups       *cgroup.Tree
	orchestrator *orchestrator.Orchestrator
	control      *control.Control
	builder      *builder.Builder
	http         *httpServer
	admin        *admin
}

// Serve runs a server until ctx is done. Sandboxes that run then go on running
// and are taken over by the next server on the same data directory. An error at
// the start leaves nothing behind.
func Serve(ctx context.Context, cfg Config) (err error) {
	s := &Server{cfg: cfg}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.assemble(ctx); err != nil {
		return err
	}
	err = run.Group(ctx,
		run.Actor{Name: "network", Run: s.network.Run},
		run.Actor{Name: "sandboxes", Run: s.orchestrator.Run},
		run.Actor{Name: "control", Run: s.control.Run},
		run.Actor{Name: "http", Run: s.http.run},
		run.Actor{Name: "admin", Run: s.admin.run},
	)
	// Sandboxes that run on keep theirs.
	return errors.Join(err, s.groups.Leave(context.WithoutCancel(ctx)))
}

// open takes what can be taken by one server only: the data directory and the
// addresses. It comes before anything that works.
func (s *Server) open(ctx context.Context) (err error) {
	cfg := s.cfg
	if !filepath.IsAbs(cfg.DataDir) || cfg.Log == nil || cfg.Engine == "" || cfg.Envd == "" {
		return errors.New("server: DataDir must be absolute, and Log, Engine and Envd are required")
	}
	if err := checkHost(cfg); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("the data directory cannot be made: %w", err)
	}
	// The same directory under another name is the same server's.
	if s.cfg.DataDir, err = filepath.EvalSymlinks(cfg.DataDir); err != nil {
		return fmt.Errorf("the data directory cannot be found: %w", err)
	}
	cfg = s.cfg
	if s.unlock, err = lock(filepath.Join(cfg.DataDir, lockFile)); err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return fmt.Errorf("cannot listen on %s: %w; choose another address with --listen", cfg.Listen, err)
	}
	if cfg.EdgeListen != "" {
		if s.edge, err = net.Listen("tcp", cfg.EdgeListen); err != nil {
			return fmt.Errorf("cannot listen on %s: %w; choose another address with --edge-listen", cfg.EdgeListen, err)
		}
	}
	records, err := sqlite.Open(ctx, filepath.Join(cfg.DataDir, "cove.db"))
	if err != nil {
		return err
	}
	s.store = records
	return nil
}

// close gives back what open took, and waits for nothing else: what works has
// ended by then.
func (s *Server) close() error {
	var errs []error
	for _, l := range []net.Listener{s.listener, s.edge} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.unlock != nil {
		errs = append(errs, s.unlock())
	}
	return errors.Join(errs...)
}

// assemble builds the parts from the ground up. It starts nothing.
func (s *Server) assemble(ctx context.Context) error {
	cfg := s.cfg
	secret, err := s.store.Secret(ctx, "tokens")
	if err != nil {
		return err
	}
	tokens, err := auth.NewTokens(secret, "1")
	if err != nil {
		return err
	}
	if err := takeInOrphans(); err != nil {
		return err
	}
	instance := InstanceOf(cfg.DataDir)
	if s.network, err = network.New(network.Config{Instance: instance, Warm: cfg.WarmSlots, Log: cfg.Log}); err != nil {
		return err
	}
	if s.groups, err = cgroup.New(cgroup.Config{Parent: "cove-" + instance}); err != nil {
		return err
	}
	s.builder = builder.New(builder.Config{
		TemplatesDir: filepath.Join(cfg.DataDir, "templates"), CacheDir: filepath.Join(cfg.DataDir, "cache"),
		Log: cfg.Log, Environ: os.Environ(),
	})
	if err := s.builder.Clean(ctx); err != nil {
		return err
	}
	tools, err := packTools(ctx, cfg.Envd, s.toolsDir())
	if err != nil {
		return err
	}
	if s.orchestrator, err = s.newOrchestrator(ctx, instance, tools, tokens); err != nil {
		return err
	}
	builds, uploads, err := s.newTemplates(filepath.Base(tools.Source))
	if err != nil {
		return err
	}
	s.control, err = control.New(control.Config{
		Store: s.store, Node: s.orchestrator, Base: base{s.builder, cfg.Progress}, Templates: templates{builds}, Uploads: uploads,
		Tokens: tokens, Log: cfg.Log, EnvdVersion: daemonVersion, Builds: cfg.Builds, TeamBuilds: cfg.TeamBuilds, BuildLimit: cfg.BuildLimit,
		Resources: cfg.Resources, MaxTimeout: cfg.MaxTimeout,
		TeamSandboxes: cfg.TeamSandboxes, TeamSnapshotBytes: cfg.TeamSnapshotsMB << 20,
		MetricsRetention: cfg.MetricsRetention, LogRetention: cfg.LogRetention,
	})
	if err != nil {
		return err
	}
	if err := s.welcome(ctx); err != nil {
		return err
	}
	s.admin = &admin{path: adminSocket(instance), sweep: s.control.Sweep}
	s.http = &httpServer{
		log: cfg.Log, listener: s.listener, edgeListener: s.edge, started: cfg.Started,
		api: api.New(api.Config{
			Control: s.control, Auth: auth.New(auth.Config{Keys: s.store}), Tokens: tokens, Log: cfg.Log, EnvdVersion: paths.Version,
		}),
		edge: proxy.New(proxy.Config{
			Dialer: s.orchestrator, Log: cfg.Log, DaemonPort: paths.Port, InternalPaths: paths.InternalPaths(), FilesPath: paths.Files,
			Wake: s.wake,
		}),
	}
	return nil
}

// newOrchestrator builds what runs sandboxes, with the engine and the daemon it
// runs them with.
func (s *Server) newOrchestrator(ctx context.Context, instance string, tools runtime.Image, tokens *auth.Tokens) (*orchestrator.Orchestrator, error) {
	cfg := s.cfg
	engine, err := engineName(ctx, cfg.Engine)
	if err != nil {
		return nil, err
	}
	engines := filepath.Join(cfg.DataDir, "engines")
	if err := keepEngine(cfg.Engine, engines, engine); err != nil {
		// No reason not to serve; a pause tries again, and must succeed.
		cfg.Log.Warn("sandboxes cannot be paused before this is put right", "err", err)
	}
	rt, err := runsc.New(runsc.Config{Engine: cfg.Engine, Version: engine, Engines: engines, StateDir: stateDir(instance), Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return orchestrator.New(orchestrator.Config{
		Dir: filepath.Join(cfg.DataDir, "sandboxes"), Snapshots: filepath.Join(cfg.DataDir, "snapshots"),
		Runtime: rt, Network: slots{s.network}, Cgroups: cgroups{s.groups},
		Images: images{builder: s.builder, tools: tools}, Daemon: daemon{tokens},
		Stock: stock{builder: s.builder, tools: s.toolsDir(), engine: cfg.Engine, engines: engines, fixed: map[orchestrator.Kind]string{
			orchestrator.DaemonItem: filepath.Base(tools.Source), orchestrator.EngineItem: engine,
		}},
		Log: cfg.Log, MaxSandboxes: cfg.MaxSandboxes,
	})
}

// toolsDir is where the images with the daemon lie.
func (s *Server) toolsDir() string { return filepath.Join(s.cfg.DataDir, "tools") }

// wake lets a paused sandbox go on for a request, if its owner wants that. One
// that runs, which is the rule, is not looked up in the records. Until the
// request's context is done, the sandbox is in use.
func (s *Server) wake(ctx context.Context, t proxy.Target, h http.Header) error {
	if !s.orchestrator.Runs(t.ID) {
		if err := s.control.Wake(ctx, t.ID, t.Port == paths.Port, h.Get(paths.TokenHeader)); err != nil {
			return err
		}
	}
	s.orchestrator.Use(ctx, t.ID)
	return nil
}

// InstanceOf names a server on its host by its data directory, so that a
// restarted server finds what is its own among what others left. The directory
// is absolute and holds no symbolic links.
func InstanceOf(dataDir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(dataDir)))
	return hex.EncodeToString(sum[:4])
}
