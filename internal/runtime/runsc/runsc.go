// Package runsc runs sandboxes with gVisor: it implements runtime.Runtime by
// asking the pinned engine binary, cove-runsc, to boot a prepared bundle.
//
// The engine runs as a separate, detached process per sandbox, so sandboxes
// outlive the server. This package does not link gVisor. It owns one goroutine
// per known sandbox, which waits in the poller for the process to end and costs
// no thread. Only package server and tests import it.
package runsc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/undo"
)

// Config is what a Runtime is made of.
type Config struct {
	Engine   string // path of cove-runsc; required
	Version  string // names Engine among those of Engines; empty: it is the only one
	Engines  string // directory with other versions, each as <version>/cove-runsc; empty: there are none
	StateDir string // directory for control sockets; required, and short: a socket's path has 108 bytes
	Log      *slog.Logger

	// StartTimeout bounds one boot. 0: 20 s.
	StartTimeout time.Duration
}

// Runtime boots sandboxes with gVisor.
type Runtime struct {
	cfg Config
}

var _ runtime.Runtime = (*Runtime)(nil)

// New checks cfg. It starts nothing and touches no disk.
func New(cfg Config) (*Runtime, error) {
	if cfg.Engine == "" || cfg.StateDir == "" || cfg.Log == nil {
		return nil, errors.New("runsc: Engine, StateDir and Log are required")
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = 20 * time.Second
	}
	return &Runtime{cfg: cfg}, nil
}

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (_ runtime.Process, err error) {
	const op = "runsc.Start"
	var undo undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.Unwind(ctx))
		}
	}()

	bundle := filepath.Join(spec.Dir, "bundle")
	undo.Add("bundle", func(context.Context) error { return os.RemoveAll(bundle) })
	if err := writeBundle(bundle, spec); err != nil {
		return nil, failure(op, err, "the sandbox's files could not be written")
	}
	if err := os.MkdirAll(r.cfg.StateDir, 0o711); err != nil {
		return nil, failure(op, err, "the sandbox's files could not be written")
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StartTimeout)
	defer cancel()
	version := cmp.Or(spec.Engine, r.cfg.Version)
	resp, err := r.launch(ctx, version, spec, bundle)
	if err != nil {
		return nil, err
	}
	p, err := r.watch(runtime.Handle{ID: spec.ID, PID: resp.PID, Socket: resp.Socket, Engine: version})
	if err != nil {
		return nil, failure(op, err, "the sandbox ended while it was starting")
	}
	// The engine has read it, and it holds the daemon's secrets.
	if err := os.RemoveAll(bundle); err != nil {
		r.cfg.Log.Warn("a sandbox's bundle could not be removed", "sandbox", spec.ID, "err", err)
	}
	return p, nil
}

// EngineFile is the name of the engine's binary.
const EngineFile = "cove-runsc"

// engine returns the path of the engine of a version.
func (r *Runtime) engine(version string) (string, error) {
	if version == "" || version == r.cfg.Version {
		return r.cfg.Engine, nil
	}
	path := filepath.Join(r.cfg.Engines, version, EngineFile)
	if r.cfg.Engines == "" || version != filepath.Base(version) {
		path = ""
	}
	if _, err := os.Stat(path); err != nil {
		return "", cove.E(cove.NotFound, "runsc.engine", err, "the engine %q that wrote the snapshot is not on this server", version)
	}
	return path, nil
}

// Adopt implements runtime.Runtime.
func (r *Runtime) Adopt(_ context.Context, h runtime.Handle) (runtime.Process, error) {
	const op = "runsc.Adopt"
	p, err := r.watch(h)
	if err != nil {
		if rerr := removeSocket(h.Socket); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return nil, cove.E(cove.NotFound, op, err, "the sandbox has ended")
	}
	return p, nil
}

// Clear implements runtime.Runtime.
func (r *Runtime) Clear(_ context.Context, id string) error {
	if err := r.killLeftover(id); err != nil {
		return failure("runsc.Clear", err, "a half-started sandbox could not be removed")
	}
	return nil
}

// writeBundle writes the OCI bundle. Its root directory stays empty: the root
// file system comes as an image.
func writeBundle(dir string, spec runtime.Spec) error {
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return err
	}
	config, err := json.Marshal(ociSpec(spec))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
}

func removeSocket(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
