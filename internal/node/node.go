// Package node is the contract for a host that runs sandboxes. The control
// plane and the edge know nothing else about a host.
//
// It decides nothing about tenants: who may do what was settled before. The
// implementation is orchestrator.Orchestrator, in this process. The contract
// may be imported by everything above the ground packages.
package node

import (
	"context"
	"errors"
	"net"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A Node runs sandboxes. Its methods may be called concurrently. A method that
// returns an error has left nothing behind; all but Create may be repeated.
type Node interface {
	// Create starts a sandbox and returns once it can be used. Conflict: it
	// runs already. NotFound: the host does not have the template's build.
	// Exhausted: the host is full.
	Create(ctx context.Context, spec cove.Spec) error

	// Kill ends a sandbox and returns when nothing of it is left. One that does
	// not run is not an error.
	Kill(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error

	// SetEnd moves the time at which the node itself ends the sandbox, server
	// or no server above it. NotFound: that execution does not run here.
	SetEnd(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, end time.Time) error

	// List returns what runs here.
	List(ctx context.Context) ([]Running, error)

	// Subscribe calls ended for every sandbox that ends from now on until ctx
	// is done, one call at a time. It returns at once; what ended before, List
	// tells.
	Subscribe(ctx context.Context, ended func(Ended)) error

	// Dial connects to a TCP port of a sandbox, whether its service listens on
	// all addresses or on localhost only. The connection is reset when the
	// sandbox ends. NotFound: it does not run here. ErrPortClosed: nothing
	// listens there.
	Dial(ctx context.Context, id cove.SandboxID, port uint16) (net.Conn, error)
}

// ErrPortClosed says that the sandbox runs and nothing listens on the port.
var ErrPortClosed = errors.New("port is not open")

// Running is a sandbox that runs on a node.
type Running struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	EndAt     time.Time
}

// Reason is why a sandbox ended.
type Reason string

// The reasons.
const (
	Killed  Reason = "killed"  // somebody asked for it
	Expired Reason = "expired" // its time was up
	Crashed Reason = "crashed" // it ended by itself
)

// Ended tells of a sandbox that does not run any more.
type Ended struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	Reason    Reason
}
