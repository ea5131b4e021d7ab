package cli

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// A finding is what doctor says of one thing of this host.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // one of the three below
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do; empty if it is ok
}

const (
	ok      = "ok"
	warning = "warning" // works, less well
	failure = "failure" // does not work
)

func newDoctor(s streams) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lacks",
		Long: `Look at this host and say what keeps sandboxes from running on it, or from running well.
As root it also tries what a sandbox needs, a network slot and a cgroup, and removes both again.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("output %q: want table or json; %w", output, errUsage)
			}
			return doctor(s, output, examine(c.Context(), setting(c, "data-dir", "COVE_DATA_DIR")))
		},
	}
	addDataDir(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

// doctor prints the findings; a failure among them is the command's failure.
func doctor(s streams, output string, findings []finding) error {
	failed := false
	for _, f := range findings {
		failed = failed || f.Status == failure
	}
	if output == "json" {
		if err := json.NewEncoder(s.out).Encode(findings); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		for _, f := range findings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Status, f.Check, f.Detail)
			if f.Advice != "" {
				fmt.Fprintf(w, "\t\t→ %s\n", f.Advice)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if failed {
		return errReported
	}
	return nil
}
