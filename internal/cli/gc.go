package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/server"
)

func newGC(s streams) *cobra.Command {
	var dryRun bool
	var olderThan time.Duration
	var output string
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove from the disk what nothing needs any more",
		Long: `Have the running server remove snapshots, template builds, daemons and engines
that no sandbox, no snapshot and no template needs any more. It does so by
itself at its start and once an hour.`,
		Example: `  cove gc --dry-run
  cove gc -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if olderThan < 0 {
				return fmt.Errorf("--older-than must not be negative; %w", errUsage)
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("unknown output %q; use table or json; %w", output, errUsage)
			}
			dir, err := filepath.Abs(setting(c, "data-dir", "COVE_DATA_DIR"))
			if err != nil {
				return err
			}
			garbage, err := server.CollectGarbage(c.Context(), dir, olderThan, dryRun)
			if garbage == nil && err != nil {
				return err
			}
			if perr := printGarbage(s, garbage, dryRun, output); perr != nil {
				return perr
			}
			return err
		},
	}
	addDataDir(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	c.Flags().DurationVar(&olderThan, "older-than", control.SweepAge, "leave what is younger: somebody may be about to use it")
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

func printGarbage(s streams, garbage []node.Garbage, dryRun bool, output string) error {
	if output == "json" {
		if garbage == nil {
			garbage = []node.Garbage{}
		}
		return json.NewEncoder(s.out).Encode(garbage)
	}
	if len(garbage) == 0 {
		_, err := fmt.Fprintln(s.out, "nothing to remove")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tNAME\tSIZE")
	var total int64
	for _, g := range garbage {
		total += g.Bytes
		fmt.Fprintf(table, "%s\t%s\t%d MiB\n", g.Kind, g.Name, g.Bytes>>20)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	what := "removed"
	if dryRun {
		what = "would remove"
	}
	_, err := fmt.Fprintf(s.out, "%s %d MiB\n", what, total>>20)
	return err
}
