package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/auth"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/network"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// The types of this file fit a mechanism to the interface an engine declares.
// They hold no state of their own.

// slots fits the network to the orchestrator.
type slots struct{ pool *network.Pool }

func (s slots) Acquire(ctx context.Context, internet bool) (orchestrator.Slot, error) {
	acquired, err := s.pool.Acquire(ctx, network.Policy{Internet: internet})
	if err != nil {
		return nil, err
	}
	return slot{s.pool, acquired}, nil
}

func (s slots) Adopt(ctx context.Context, index int, internet bool) (orchestrator.Slot, error) {
	adopted, err := s.pool.Adopt(ctx, index, network.Policy{Internet: internet})
	if err != nil {
		return nil, err
	}
	return slot{s.pool, adopted}, nil
}

func (s slots) Sweep(ctx context.Context, keep map[int]bool) error { return s.pool.Sweep(ctx, keep) }

type slot struct {
	pool *network.Pool
	*network.Slot
}

func (s slot) Index() int { return s.Slot.Index }

func (s slot) Runtime() runtime.Network {
	return runtime.Network{NetNS: s.NetNS, Interface: s.Interface, Address: s.Inside, Gateway: s.Gateway, MTU: s.MTU}
}

func (s slot) Release(ctx context.Context) error { return s.pool.Release(ctx, s.Slot) }

// cgroups fits the host's cgroups to the orchestrator.
type cgroups struct{ groups *cgroup.Tree }

// maxProcesses is how many threads the engine may have on the host. The
// sandbox's own processes are the engine's matter; each of its address spaces
// costs it a few.
const maxProcesses = 16384

func (c cgroups) Create(ctx context.Context, id cove.SandboxID, r cove.Resources) ([]string, error) {
	g, err := c.groups.Create(ctx, string(id), cgroup.Limits{
		CPUs: r.CPUs, MemoryBytes: int64(r.MemoryMB) << 20, Pids: maxProcesses,
	})
	if err != nil {
		return nil, err
	}
	return g.Dirs(), nil
}

func (c cgroups) Memory(_ context.Context, id cove.SandboxID) (int64, error) {
	g, err := c.groups.Open(string(id))
	if err != nil {
		return 0, err
	}
	usage, err := g.Usage()
	return int64(usage.MemoryBytes), err
}

func (c cgroups) Load(_ context.Context, id cove.SandboxID) (orchestrator.Load, error) {
	g, err := c.groups.Open(string(id))
	if err != nil {
		return orchestrator.Load{}, err
	}
	load, err := g.Load()
	return orchestrator.Load{CPU: load.CPU, Cache: load.FileBytes}, err
}

func (c cgroups) Remove(ctx context.Context, id cove.SandboxID) error {
	g, err := c.groups.Open(string(id))
	if cove.Is(err, cove.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.Remove(ctx)
}

func (c cgroups) List(ctx context.Context) ([]cove.SandboxID, error) {
	names, err := c.groups.List(ctx)
	ids := make([]cove.SandboxID, 0, len(names))
	for _, name := range names {
		ids = append(ids, cove.SandboxID(name))
	}
	return ids, err
}

// images fits the builds on this host to the orchestrator.
type images struct {
	builder *builder.Builder
	tools   runtime.Image // the newest
}

func (i images) Root(ctx context.Context, build cove.BuildID) (string, error) {
	if _, err := i.builder.Manifest(ctx, build); err != nil {
		return "", err
	}
	return i.builder.Dir(build) + "/" + builder.RootfsFile, nil
}

func (i images) Tools(_ context.Context, name string) (runtime.Image, error) {
	image := i.tools
	if name == "" || name == filepath.Base(image.Source) {
		return image, nil
	}
	image.Source = filepath.Join(filepath.Dir(image.Source), filepath.Base(name))
	if _, err := os.Stat(image.Source); err != nil {
		return runtime.Image{}, cove.E(cove.NotFound, "server.Tools", err, "the daemon that the snapshot was taken with is not on this server")
	}
	return image, nil
}

// base fits the builder to the control plane.
type base struct {
	builder  *builder.Builder
	progress func(builder.Progress)
}

func (b base) Find(ctx context.Context) (cove.Build, bool, error) {
	m, err := b.builder.FindBase(ctx)
	if cove.Is(err, cove.NotFound) {
		return cove.Build{}, false, nil
	}
	return buildOf(m), err == nil, err
}

func (b base) Build(ctx context.Context, id cove.BuildID) (cove.Build, error) {
	progress := b.progress
	if progress == nil {
		progress = func(builder.Progress) {}
	}
	m, err := b.builder.BuildBase(ctx, id, progress)
	return buildOf(m), err
}

func buildOf(m builder.Manifest) cove.Build {
	return cove.Build{ID: m.Build, Envd: paths.Version, Setup: cove.Setup{User: m.User, Workdir: m.Workdir}}
}

// daemon fits the client of the daemon inside to the orchestrator.
type daemon struct{ tokens *auth.Tokens }

// insidePath is the search path of the daemon and, with what a login shell
// adds, of every process in a sandbox.
const insidePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (d daemon) Command(spec cove.Spec, nameServer netip.Addr) (args, env []string) {
	return []string{paths.Binary}, []string{
		"PATH=" + insidePath,
		"HOME=/root",
		"E2B_SANDBOX=true",
		"E2B_SANDBOX_ID=" + string(spec.ID),
		"E2B_TEMPLATE_ID=" + string(spec.Template),
		"COVE_CONTROL_TOKEN=" + d.tokens.Control(spec.ID),
		"COVE_NAMESERVER=" + nameServer.String(),
	}
}

func (d daemon) client(id cove.SandboxID, dial orchestrator.DialFunc) *envdclient.Client {
	return envdclient.New(envdclient.Config{Dial: dial, ControlToken: d.tokens.Control(id)})
}

func (d daemon) Init(ctx context.Context, identity cove.SandboxID, spec cove.Spec, dial orchestrator.DialFunc) error {
	client := d.client(identity, dial)
	defer client.Close()
	err := client.Init(ctx, envdclient.Init{
		AccessToken: spec.Token, EnvVars: spec.Env, Timestamp: nowUTC(), DefaultUser: spec.User, DefaultWorkdir: spec.Workdir,
		SandboxID: spec.ID, TemplateID: spec.Template,
	})
	if err != nil {
		return fmt.Errorf("telling the daemon who it is: %w", err)
	}
	return nil
}

func (d daemon) Begin(ctx context.Context, spec cove.Spec, dial orchestrator.DialFunc) error {
	client := envdclient.New(envdclient.Config{Dial: dial, Token: func() string { return spec.Token }})
	defer client.Close()
	// The daemon's defaults are the template's user and directory.
	err := client.Begin(ctx, envdclient.Command{Args: []string{"/bin/bash", "-l", "-c", spec.Start.Command}, Env: spec.Start.Env})
	if refused, ok := errors.AsType[*envdclient.RefusedError](err); ok {
		return cove.E(cove.Invalid, "server.Begin", err, "%s", refused)
	}
	return err
}

func (d daemon) Health(ctx context.Context, dial orchestrator.DialFunc) error {
	client := d.client("", dial)
	defer client.Close()
	return client.Health(ctx)
}

func (d daemon) Connect(ctx context.Context, identity cove.SandboxID, dial orchestrator.DialFunc, port uint16) (net.Conn, error) {
	client := d.client(identity, dial)
	defer client.Close()
	conn, err := client.Connect(ctx, port)
	if errors.Is(err, envdclient.ErrPortClosed) {
		return nil, node.ErrPortClosed
	}
	return conn, err
}

func (d daemon) Listen(ctx context.Context, identity cove.SandboxID, dial orchestrator.DialFunc, after int64, said func(orchestrator.Said) bool) error {
	client := d.client(identity, dial)
	defer client.Close()
	return client.Listen(ctx, after, func(l envdclient.Line) bool { return said(orchestrator.Said(l)) })
}

func (d daemon) ReadyLine() string { return paths.ReadyLine }

func (d daemon) Port() uint16 { return paths.Port }
