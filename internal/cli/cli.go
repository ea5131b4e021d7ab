// Package cli is the command line: the table of commands, their flags, what
// they print and their exit statuses.
//
// It does no work of its own; the work of serve is package server's. Only
// cmd/cove imports it. It starts no goroutines.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Version is the program's version; a release sets it with -ldflags -X.
var Version = "dev"

// Main runs the command that args name and returns the exit status: 0, 1 for a
// failure, 2 for a command that was not understood.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(streams{in, out, errOut})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	}
	fmt.Fprintln(errOut, "cove:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

var (
	// errReported is a failure whose explanation was printed already.
	errReported = errors.New("reported")
	// errUsage marks a command line that was not understood.
	errUsage = errors.New("see \"cove --help\"")
)

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "cove",
		Short: "Sandboxes for code that agents write, on your own machine",
		Long: `cove runs code that AI agents write in isolated gVisor sandboxes on this machine.
The official E2B SDKs and CLI work against it unchanged.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; %w", args[0], errUsage)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	root.AddCommand(newServe(s), newEnv(s), newDoctor(s), newGC(s), newUninstall(s), newVersion(s))
	return root
}

func newVersion(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.out, "cove", Version)
			return err
		},
	}
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments; %w", c.CommandPath(), errUsage)
	}
	return nil
}

// setting returns a flag's value, or that of an environment variable if the
// flag was not given and the variable is set.
func setting(c *cobra.Command, flag, variable string) string {
	if v, ok := os.LookupEnv(variable); ok && !c.Flags().Changed(flag) {
		return v
	}
	return c.Flags().Lookup(flag).Value.String()
}

const (
	defaultDataDir = "/var/lib/cove"
	defaultListen  = "127.0.0.1:3000"
)

func addDataDir(c *cobra.Command) {
	c.Flags().String("data-dir", defaultDataDir, "directory of everything the server keeps (env COVE_DATA_DIR)")
}
