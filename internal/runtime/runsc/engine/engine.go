// Package engine is the program behind cmd/cove-runsc: gVisor's own command
// line, and beside it a launcher that starts a sandbox from prepared parts.
//
// The launcher exists because the command line cannot do two things Cove needs:
// take a network interface as a socket instead of reading a namespace's
// configuration, and keep the writable layer on disk without a second (gofer)
// process. It is a short-lived child because joining a version 1 cgroup moves
// the calling process.
//
// Only cmd/cove-runsc imports it, and nothing else in the module links gVisor.
// It starts goroutines for an export only, which end with it or with the process.
package engine

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"gvisor.dev/gvisor/runsc/cli/maincli"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

// Main runs the launcher if args ask for it and gVisor's command line if not.
// gVisor ends the process itself, so only the launcher returns a status.
func Main(args []string) int {
	verb := ""
	if len(args) > 1 {
		verb = args[1]
	}
	switch verb {
	case launch.Verb:
		return answer(os.Stdin, os.Stdout, start)
	case launch.OrderVerb:
		return answer(os.Stdin, os.Stdout, obey)
	}
	// It boots sandboxes among other things: the launcher runs this program again.
	new(bound).install()
	maincli.Main()
	return 0
}

// answer reads a request, does what it asks and writes the response. The
// caller's standard output becomes private to it: a sandbox gets streams of its
// own.
func answer[T any](in io.Reader, out io.Writer, do func(T) (launch.Response, error)) int {
	var req T
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	err := dec.Decode(&req)
	var resp launch.Response
	if err == nil {
		resp, err = do(req)
	}
	if err != nil {
		resp = launch.Response{Error: err.Error()}
	}
	if err := json.NewEncoder(out).Encode(resp); err != nil {
		fmt.Fprintln(os.Stderr, "writing the launcher's response:", err)
		return 1
	}
	if resp.Error != "" {
		return 1
	}
	return 0
}
