package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cove-sandbox/cove/internal/server"
)

func newEnv(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "env",
		Short: "Print what a client's shell needs to know",
		Long:  "Print the exports that point the E2B SDKs and CLI at the server of this machine.",
		Example: `  eval "$(cove env)"
  eval "$(cove env --data-dir /srv/cove)"`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir := setting(c, "data-dir", "COVE_DATA_DIR")
			values, err := server.ReadCredentials(filepath.Join(dir, server.CredentialsFile))
			if errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("no server has run on %s yet: start it with \"cove serve\", or name its directory with --data-dir", dir)
			}
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("the credentials in %s are another user's: run this as the user the server runs as", dir)
			}
			if err != nil {
				return err
			}
			names := make([]string, 0, len(values))
			for name := range values {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				if _, err := fmt.Fprintf(s.out, "export %s='%s'\n", name, strings.ReplaceAll(values[name], "'", `'\''`)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addDataDir(c)
	return c
}
