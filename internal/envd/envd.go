// Package envd is the daemon inside every sandbox: it runs as the sandbox's
// first process and serves processes, files and ports to the clients outside.
//
// It is part of no server and knows nothing of hosts; package envdclient is the
// host's side, and package paths what both know. Only cmd/cove-envd imports it.
// It is loaded in every sandbox, so it imports little, and while nothing runs in
// the sandbox but itself it does nothing: it has no tickers and polls nothing.
//
// A Daemon's Run owns all goroutines and waits for them. Everything is done as
// root; the user of a call decides who owns what comes of it.
package envd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/copying"
	"github.com/cove-sandbox/cove/internal/envd/files"
	"github.com/cove-sandbox/cove/internal/envd/filesystem"
	"github.com/cove-sandbox/cove/internal/envd/guard"
	"github.com/cove-sandbox/cove/internal/envd/journal"
	"github.com/cove-sandbox/cove/internal/envd/pen"
	"github.com/cove-sandbox/cove/internal/envd/ports"
	"github.com/cove-sandbox/cove/internal/envd/process"
	"github.com/cove-sandbox/cove/internal/envd/reap"
	"github.com/cove-sandbox/cove/internal/envd/settings"
	"github.com/cove-sandbox/cove/internal/run"
)

// Config is what a Daemon is made of.
type Config struct {
	Listener     net.Listener // required; closed by Run
	Log          *slog.Logger // required
	ControlToken string       // what the host's routes ask for; empty: they refuse everybody

	Env      map[string]string // protected variables of every process
	Path     string            // PATH of processes; empty: the usual directories
	Orphans  bool              // collect orphans, as the first process must
	OOMScore int               // oom_score_adj of processes; 0: as the daemon's
	Pens     *pen.Pens         // where processes live, guarded against too many and too large ones; nil: nowhere
	Passwd   string            // empty: /etc/passwd
	Group    string            // empty: /etc/group

	SetClock func(time.Time) error         // nil: the clock is never set
	Markers  func(map[string]string) error // told when a restore changes Env; nil: nobody

	Stall  time.Duration // how long a process waits for a listener; 0: 30s
	Retain time.Duration // how long the end of a process is remembered; 0: 30s
	Grace  time.Duration // between SIGTERM and SIGKILL at the end; 0: 2s
}

// DefaultPath is the PATH of processes where nothing else says so.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// idleTimeout closes connections that nobody uses; longer than the load
// balancers in front of a sandbox keep theirs.
const idleTimeout = 640 * time.Second

// A Daemon serves one sandbox.
type Daemon struct {
	cfg       Config
	settings  *settings.Store
	reaper    *reap.Reaper
	processes *process.Service
	files     *filesystem.Service
	contents  *files.Handler
	copies    *copying.Handler
	tunnels   *ports.Tunnels
	journal   *journal.Journal
	cpu       *cpuMeter
	guard     *guard.Guard // nil without one
}

// New checks cfg and allocates; it starts nothing.
func New(cfg Config) (*Daemon, error) {
	if cfg.Listener == nil || cfg.Log == nil {
		return nil, errors.New("envd: Listener and Log are required")
	}
	defaultTo(&cfg.Path, DefaultPath)
	defaultTo(&cfg.Passwd, "/etc/passwd")
	defaultTo(&cfg.Group, "/etc/group")
	users := account.New(cfg.Passwd, cfg.Group)
	d := &Daemon{
		cfg:      cfg,
		settings: settings.New(cfg.Env),
		reaper:   reap.New(cfg.Orphans, cfg.Pens),
		tunnels:  ports.New(),
		journal:  journal.New(),
		cpu:      newCPUMeter(),
	}
	d.processes = process.New(process.Config{
		Users: users, Settings: d.settings, Reaper: d.reaper, Log: cfg.Log, Path: cfg.Path,
		OOMScore: cfg.OOMScore, Stall: cfg.Stall, Retain: cfg.Retain, Grace: cfg.Grace,
	})
	d.files = filesystem.New(filesystem.Config{Users: users, Settings: d.settings, Log: cfg.Log})
	if cfg.Pens != nil {
		d.guard = guard.New(guard.Config{
			Children: d.reaper, Pens: pens(cfg.Pens), Log: d.journal.Logger("guard", cfg.Log), Self: os.Getpid(), Proc: "/proc",
			Measure: guard.Sysinfo, Signal: syscall.Kill, Sleep: guard.Sleep,
		})
	}
	d.contents = files.New(files.Config{Users: users, Settings: d.settings, Log: cfg.Log})
	d.copies = copying.New(copying.Config{Users: users, Log: cfg.Log})
	return d, nil
}

// pens returns what the guard sees of all pens.
func pens(all *pen.Pens) func() []guard.Pen {
	return func() (out []guard.Pen) {
		for _, p := range all.List() {
			out = append(out, p)
		}
		return out
	}
}

func defaultTo(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// Run serves until ctx is done, then ends what runs in the sandbox.
func (d *Daemon) Run(ctx context.Context) error {
	actors := []run.Actor{{Name: "reaper", Run: d.reaper.Run}}
	if d.guard != nil {
		actors = append(actors, run.Actor{Name: "guard", Run: d.guard.Run})
	}
	return run.Group(ctx, append(actors,
		run.Actor{Name: "processes", Run: d.processes.Run},
		run.Actor{Name: "filesystem", Run: d.files.Run},
		run.Actor{Name: "tunnels", Run: d.tunnels.Run},
		run.Actor{Name: "journal", Run: d.journal.Run},
		run.Actor{Name: "http", Run: d.serve},
	)...)
}

// serve answers requests until ctx is done, which ends all streams.
func (d *Daemon) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           d.Handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		IdleTimeout:       idleTimeout,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(d.cfg.Listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// The streams have heard of ctx and say goodbye; the rest is cut.
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := srv.Shutdown(short)
	if err != nil {
		err = srv.Close()
	}
	<-ended
	return err
}
