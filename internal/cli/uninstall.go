package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cove-sandbox/cove/internal/server"
)

func newUninstall(s streams) *cobra.Command {
	var yes, purge bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what a server has on this host",
		Long: `End all sandboxes of the server on a data directory, and remove its network, its
cgroups and its control sockets. The server itself must have been stopped. The
data directory stays, unless --purge is given. It may be gone already: what was
on the host for it is found by its path.`,
		Example: `  cove uninstall --yes
  cove uninstall --yes --purge --data-dir /srv/cove`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("this ends all sandboxes of the server; say --yes if that is meant")
			}
			dir, err := filepath.Abs(setting(c, "data-dir", "COVE_DATA_DIR"))
			if err != nil {
				return err
			}
			if err := server.Uninstall(c.Context(), slog.New(slog.DiscardHandler), dir, purge); err != nil {
				return err
			}
			if purge {
				_, err = fmt.Fprintf(s.out, "removed everything, %s too\n", dir)
			} else {
				_, err = fmt.Fprintf(s.out, "removed everything but %s\n", dir)
			}
			return err
		},
	}
	addDataDir(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	c.Flags().BoolVar(&purge, "purge", false, "remove the data directory too")
	return c
}
