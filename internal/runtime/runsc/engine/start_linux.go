package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/state/statefile"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/sandbox"
	"gvisor.dev/gvisor/runsc/specutils"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

// start boots a sandbox and starts its init process. On an error nothing of the
// sandbox is left.
func start(req launch.Request) (_ launch.Response, err error) {
	log.SetLevel(log.Warning)
	if err := joinCgroups(req.Cgroups); err != nil {
		return launch.Response{}, err
	}
	conf, err := engineConfig(req)
	if err != nil {
		return launch.Response{}, fmt.Errorf("engine configuration: %w", err)
	}
	spec, err := specutils.ReadSpec(req.Bundle, conf)
	if err != nil {
		return launch.Response{}, fmt.Errorf("reading the bundle: %w", err)
	}
	args := &sandbox.Args{
		ID:        req.ID,
		Spec:      spec,
		BundleDir: req.Bundle,
		Cgroup:    limits{cpus: req.CPUs, memory: uint64(req.MemoryBytes)},
	}
	if req.FilesOnly {
		args.FSRestoreImagePath = req.Restore
	}
	if err := openFiles(req, args); err != nil {
		return launch.Response{}, err
	}
	if args.MountHints, err = boot.NewPodMountHints(spec); err != nil {
		return launch.Response{}, fmt.Errorf("mount hints: %w", err)
	}
	if err := initStdio(req); err != nil {
		return launch.Response{}, err
	}

	sb, err := sandbox.New(conf, args)
	if err != nil {
		return launch.Response{}, fmt.Errorf("booting the engine: %w", err)
	}
	undo := cleanup.Make(func() {
		_ = unix.Kill(sb.Getpid(), unix.SIGKILL)
		_ = os.Remove(sb.GetControlSocketPath())
	})
	defer undo.Clean()

	network, err := networkArgs(req.Network)
	if err != nil {
		return launch.Response{}, fmt.Errorf("network: %w", err)
	}
	if req.Restore != "" && !req.FilesOnly {
		err = restore(conf, spec, sb, req, network)
	} else {
		err = begin(sb, req.ID, network)
	}
	if err != nil {
		return launch.Response{}, err
	}
	// If the host runs out of memory, sandboxes go before the server does.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", sb.Getpid()), []byte("500"), 0); err != nil {
		return launch.Response{}, fmt.Errorf("ranking the sandbox for the host's memory: %w", err)
	}
	undo.Release()
	return launch.Response{PID: sb.Getpid(), Socket: sb.GetControlSocketPath()}, nil
}

// begin starts init in a booted engine.
func begin(sb *sandbox.Sandbox, id string, network *boot.CreateLinksAndRoutesArgs) error {
	conn, err := client.ConnectTo(sb.GetControlSocketPath())
	if err != nil {
		return fmt.Errorf("connecting to the engine: %w", err)
	}
	defer conn.Close()
	if err := conn.Call(boot.ContMgrSetNetworkArgs, network, nil); err != nil {
		return fmt.Errorf("configuring the network: %w", err)
	}
	if err := conn.Call(boot.ContMgrRootContainerStart, &id, nil); err != nil {
		return fmt.Errorf("starting init: %w", err)
	}
	return nil
}

// restore continues a checkpoint in a booted engine. The pages of its memory
// are loaded in the background, those that are needed first.
func restore(conf *config.Config, spec *specs.Spec, sb *sandbox.Sandbox, req launch.Request, network *boot.CreateLinksAndRoutesArgs) error {
	network.IsRestore = true
	if err := sb.Restore(conf, spec, req.ID, req.Restore, false, true, network); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	return nil
}

// obey carries out an order for a sandbox that runs.
func obey(o launch.Order) (launch.Response, error) {
	log.SetLevel(log.Warning)
	sb := &sandbox.Sandbox{ID: o.ID, ControlSocketPath: o.Socket}
	switch o.Do {
	case launch.Thaw:
		return launch.Response{}, sb.Resume(o.ID)
	case launch.Checkpoint:
		conf, err := engineConfig(launch.Request{StateDir: filepath.Dir(o.Socket)})
		if err != nil {
			return launch.Response{}, fmt.Errorf("engine configuration: %w", err)
		}
		if err := sb.Pause(o.ID); err != nil {
			return launch.Response{}, err
		}
		if o.FilesOnly {
			if err := sb.FSSave(conf, o.ID, o.Dir, sandbox.FSSaveOpts{}); err != nil {
				return launch.Response{}, errors.Join(err, sb.Resume(o.ID))
			}
			return launch.Response{}, nil
		}
		// Resume is about the stop that the checkpoint adds itself: the one
		// above stays.
		opts := sandbox.CheckpointOpts{Compression: statefile.CompressionLevelNone, Resume: true}
		if err := sb.Checkpoint(conf, o.ID, o.Dir, opts); err != nil {
			return launch.Response{}, errors.Join(err, sb.Resume(o.ID))
		}
		return launch.Response{}, nil
	case launch.Export:
		return launch.Response{}, export(sb, o)
	}
	return launch.Response{}, fmt.Errorf(launch.Unknown+" %q", o.Do)
}

// engineConfig states every engine setting that differs from gVisor's default.
func engineConfig(req launch.Request) (*config.Config, error) {
	flags := flag.NewFlagSet("engine", flag.ContinueOnError)
	config.RegisterFlags(flags)
	settings := map[string]string{
		"root":           req.StateDir,
		"platform":       "systrap",
		"network":        "sandbox",
		"allow-suid":     "true",  // sudo
		"directfs":       "false", // no host directory is served: the sentry runs as nobody
		"overlay2":       "none",  // the launcher brings its own writable layer
		"ignore-cgroups": "true",  // the caller prepared them
		"host-settings":  "ignore",
		"net-raw":        "false",
		// The daemon's pens are control groups of version 2.
		"in-sandbox-cgroup": "v2",
		// This engine's version is pinned and has everything in one program.
		"sidecar-usage-policy": "LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK",
	}
	if req.PanicLog != "" {
		settings["panic-log"] = req.PanicLog
	}
	if req.DebugLog != "" {
		settings["debug"] = "true"
		settings["debug-log"] = req.DebugLog + "/"
	}
	for name, value := range settings {
		if err := flags.Set(name, value); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	return config.NewFromFlags(flags)
}

// openFiles opens the images and creates the file behind the writable layer.
// That file has no name: it disappears with the last process that holds it.
func openFiles(req launch.Request, args *sandbox.Args) error {
	args.GoferMountConfs = specutils.GoferMountConfFlags{{
		Lower: specutils.Erofs,
		Upper: specutils.AnonOverlay,
		Size:  strconv.FormatInt(req.UpperBytes, 10),
	}}
	for i, path := range append([]string{req.Rootfs}, req.Images...) {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("opening an image: %w", err)
		}
		args.IOFiles = append(args.IOFiles, f)
		if i > 0 {
			args.GoferMountConfs = append(args.GoferMountConfs, specutils.GoferMountConf{Lower: specutils.Erofs})
		}
	}
	fd, err := unix.Open(req.UpperDir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("creating the writable layer: %w", err)
	}
	args.GoferFilestoreFiles = []*os.File{os.NewFile(uintptr(fd), "upper")}
	return nil
}

// joinCgroups moves this process into the sandbox's cgroups, so that everything
// it starts is counted and limited from its first instruction.
func joinCgroups(dirs []string) error {
	pid := []byte(strconv.Itoa(os.Getpid()))
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), pid, 0); err != nil {
			return fmt.Errorf("joining a cgroup: %w", err)
		}
	}
	return nil
}

// initStdio points the process's standard streams, which the sandbox's init
// inherits, at /dev/null and at the descriptor the caller gave for output. The
// response goes to the original output, which the caller of answer holds.
func initStdio(req launch.Request) (err error) {
	if os.Stdin, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	output := os.Stdin
	switch {
	case req.Output:
		output = os.NewFile(launch.OutputFD, "output")
	case req.Restore != "":
		// Output was a pipe when the checkpoint was written, and the engine
		// wants something as pollable in its place.
		if output, err = sink(req.Bundle); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	os.Stdout, os.Stderr = output, output
	return nil
}

// sink returns a pipe that is its own reader: what is written to it is kept
// until it is full, and nobody ever reads it.
func sink(dir string) (*os.File, error) {
	name := filepath.Join(dir, "output")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(name)
	return os.OpenFile(name, os.O_RDWR, 0)
}
