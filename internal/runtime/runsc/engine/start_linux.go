package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/log"
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
	if err := openFiles(req, args); err != nil {
		return launch.Response{}, err
	}
	if args.MountHints, err = boot.NewPodMountHints(spec); err != nil {
		return launch.Response{}, fmt.Errorf("mount hints: %w", err)
	}
	if err := initStdio(req.Output); err != nil {
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

	conn, err := client.ConnectTo(sb.GetControlSocketPath())
	if err != nil {
		return launch.Response{}, fmt.Errorf("connecting to the engine: %w", err)
	}
	defer conn.Close()
	network, err := networkArgs(req.Network)
	if err != nil {
		return launch.Response{}, fmt.Errorf("network: %w", err)
	}
	if err := conn.Call(boot.ContMgrSetNetworkArgs, network, nil); err != nil {
		return launch.Response{}, fmt.Errorf("configuring the network: %w", err)
	}
	if err := conn.Call(boot.ContMgrRootContainerStart, &req.ID, nil); err != nil {
		return launch.Response{}, fmt.Errorf("starting init: %w", err)
	}
	undo.Release()
	return launch.Response{PID: sb.Getpid(), Socket: sb.GetControlSocketPath()}, nil
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
func initStdio(output bool) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	os.Stdin, os.Stdout, os.Stderr = null, null, null
	if output {
		f := os.NewFile(launch.OutputFD, "output")
		os.Stdout, os.Stderr = f, f
	}
	return nil
}
