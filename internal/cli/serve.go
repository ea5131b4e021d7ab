package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/obs"
	"github.com/cove-sandbox/cove/internal/server"
)

// serveFlags are the flags of serve that are not text.
type serveFlags struct {
	warm, most    int
	maxTimeout    time.Duration
	teamSandboxes int
	teamSnapshots int64
	resources     cove.Resources
	metrics       time.Duration
	logs          time.Duration
	builds        buildFlags
}

// week is how long sandboxes' metrics and logs are kept if nothing else is said.
const week = 7 * 24 * time.Hour

func newServe(s streams) *cobra.Command {
	var flags serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server: the API and the edge on one address.

At the first start it makes a team, a key and <data-dir>/credentials.env, and
builds the template "base"; that takes a few minutes and is shown. Sandboxes
outlive the server: stop it, even with kill -9, start it again on the same
data directory, and they are still there.`,
		Example: `  cove serve
  cove serve --data-dir /srv/cove --listen 127.0.0.1:3000
  eval "$(cove env)"   # in the shell of a client`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c, s, flags) },
	}
	addDataDir(c)
	f := c.Flags()
	f.String("listen", defaultListen, "address of the API and the edge (env COVE_LISTEN)")
	f.String("edge-listen", "", "one more address, for the edge alone (env COVE_EDGE_LISTEN)")
	f.String("log-level", "info", "debug, info, warn or error (env COVE_LOG_LEVEL)")
	f.String("log-format", "text", "text or json (env COVE_LOG_FORMAT)")
	f.IntVar(&flags.warm, "warm-slots", 4, "network slots kept ready")
	f.IntVar(&flags.most, "max-sandboxes", 0, "most sandboxes at a time; 0: as many as the host bears")
	f.IntVar(&flags.teamSandboxes, "team-sandboxes", 0, "most sandboxes of a team that run at a time; 0: no limit")
	f.Int64Var(&flags.teamSnapshots, "team-snapshots-mb", 0, "most disk that a team's snapshots and paused sandboxes may take, in MiB; 0: no limit")
	f.DurationVar(&flags.maxTimeout, "max-timeout", 0, "longest life of a sandbox, for example 24h; 0: no limit")
	f.DurationVar(&flags.metrics, "metrics-retention", week, "how long it is kept what sandboxes used")
	f.DurationVar(&flags.logs, "log-retention", week, "how long logs of sandboxes are kept")
	flags.builds.add(f)
	f.IntVar(&flags.resources.CPUs, "cpus", 2, "processors of a sandbox of the base template")
	f.IntVar(&flags.resources.MemoryMB, "memory-mb", 1024, "memory of a sandbox of the base template, in MiB")
	f.IntVar(&flags.resources.DiskMB, "disk-mb", 10240, "disk of a sandbox of the base template, in MiB")
	return c
}

func serve(c *cobra.Command, s streams, flags serveFlags) error {
	log, err := obs.NewLogger(s.err, setting(c, "log-level", "COVE_LOG_LEVEL"), obs.Format(setting(c, "log-format", "COVE_LOG_FORMAT")))
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	r := flags.resources
	if flags.metrics <= 0 || flags.logs <= 0 {
		return fmt.Errorf("a retention must be longer than 0; %w", errUsage)
	}
	if flags.warm < 0 || flags.most < 0 || flags.teamSandboxes < 0 || flags.teamSnapshots < 0 || flags.maxTimeout < 0 || r.CPUs < 1 || r.MemoryMB < 128 || r.DiskMB < 64 {
		return fmt.Errorf("limits must not be negative; a sandbox has at least 1 processor, 128 MiB of memory and 64 MiB of disk; %w", errUsage)
	}
	images, err := flags.builds.images()
	if err != nil {
		return err
	}
	dataDir, err := filepath.Abs(setting(c, "data-dir", "COVE_DATA_DIR"))
	if err != nil {
		return err
	}
	programs, err := programDir()
	if err != nil {
		return err
	}
	return server.Serve(c.Context(), server.Config{
		DataDir:      dataDir,
		Listen:       setting(c, "listen", "COVE_LISTEN"),
		EdgeListen:   setting(c, "edge-listen", "COVE_EDGE_LISTEN"),
		Engine:       filepath.Join(programs, "cove-runsc"),
		Envd:         filepath.Join(programs, "cove-envd"),
		Log:          log,
		Progress:     newProgress(s.err).show,
		Started:      func(addr net.Addr) { announce(s, addr, dataDir) },
		WarmSlots:    flags.warm,
		MaxSandboxes: flags.most,
		MaxTimeout:   flags.maxTimeout,

		TeamSandboxes:   flags.teamSandboxes,
		TeamSnapshotsMB: flags.teamSnapshots,

		Resources: r,

		Images:     images,
		Builds:     flags.builds.atOnce,
		TeamBuilds: flags.builds.ofTeam,
		BuildLimit: flags.builds.limit,
		ReadyLimit: flags.builds.ready,

		MetricsRetention: flags.metrics,
		LogRetention:     flags.logs,
	})
}

// announce says where the server is and how to use it.
func announce(s streams, addr net.Addr, dataDir string) {
	fmt.Fprintf(s.err, "cove serves on http://%s\n", addr)
	fmt.Fprintf(s.err, "for clients: source %s\n", filepath.Join(dataDir, server.CredentialsFile))
}

// programDir returns where the engine and the daemon lie: beside this program.
func programDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("this program does not know where it lies: %w", err)
	}
	self, err = filepath.EvalSymlinks(self)
	return filepath.Dir(self), err
}
