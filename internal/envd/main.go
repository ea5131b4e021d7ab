package envd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/cove-sandbox/cove/internal/envd/guard"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/pen"
)

// The host's half of the environment.
const (
	envControlToken = "COVE_CONTROL_TOKEN"
	envNameserver   = "COVE_NAMESERVER"
)

// userOOMScore is the oom_score_adj of what runs in the sandbox: more willing
// to go than the daemon, and than an ordinary process.
const userOOMScore = 100

// Main runs the daemon as args say until SIGTERM and returns its exit status.
// Once it serves, it prints one line to stdout; nothing else is ever printed
// there. The host may close its end of stdout and stderr at any time.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("cove-envd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", fmt.Sprintf("0.0.0.0:%d", paths.Port), "`address` to listen on")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	// Caught and not ignored: what is ignored stays so in the programs that are
	// started, which then do not notice that their reader has gone.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)

	if err := serve(ctx, *listen, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "cove-envd:", err)
		return 1
	}
	return 0
}

// limit sets the limits that gVisor does not have by itself and the guard relies
// on.
func limit() (*pen.Pens, error) {
	s, err := guard.Sysinfo()
	if err != nil {
		return nil, err
	}
	if err := limitSharedMemory(s.Total); err != nil {
		return nil, err
	}
	return pen.Open(guard.Limits(s.Total))
}

func serve(ctx context.Context, listen string, stdout, stderr io.Writer) error {
	syscall.Umask(0o022)
	env := identity(os.Getenv(envSandboxID), os.Getenv(envTemplateID))
	if v := os.Getenv(envSandbox); v != "" {
		env[envSandbox] = v
	}
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read hostname: %w", err)
	}
	boot := Boot{Hostname: hostname, Nameserver: os.Getenv(envNameserver), Env: env}
	if err := boot.Prepare(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	cfg := Config{
		Listener:     ln,
		Log:          slog.New(slog.NewTextHandler(stderr, nil)),
		ControlToken: os.Getenv(envControlToken),
		Env:          env,
		Path:         os.Getenv("PATH"),
		Orphans:      os.Getpid() == 1,
		SetClock:     setClock,
		Markers:      boot.Mark,
	}
	if cfg.Orphans && guard.Needed() {
		if cfg.Pens, err = limit(); err != nil {
			return err
		}
	}
	if protect() {
		cfg.OOMScore = userOOMScore
	}
	d, err := New(cfg)
	if err != nil {
		return err
	}
	// The socket listens: whoever reads the line is served, if a little later.
	if _, err := fmt.Fprintln(stdout, paths.ReadyLine); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("say ready: %w", err)
	}
	return d.Run(ctx)
}
