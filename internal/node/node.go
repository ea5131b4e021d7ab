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
	"io"
	"net"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A Node runs sandboxes. Its methods may be called concurrently. A method that
// returns an error has left nothing behind; all but Create may be repeated.
type Node interface {
	// Create starts a sandbox, afresh or from its spec's snapshot, and returns
	// once it can be used. Conflict: it runs already. NotFound: the host does
	// not have the template's build or the snapshot. Exhausted: the host is
	// full.
	Create(ctx context.Context, spec cove.Spec) error

	// Kill ends a sandbox and returns when nothing of it is left. One that does
	// not run is not an error.
	Kill(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error

	// SetEnd moves the time at which the node itself ends the sandbox, server
	// or no server above it. NotFound: that execution does not run here.
	SetEnd(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, end time.Time) error

	// List returns what runs here.
	List(ctx context.Context) ([]Running, error)

	// Measure returns what each sandbox that runs here uses now. One that stands
	// still, or cannot be measured, is left out.
	Measure(ctx context.Context) ([]Measurement, error)

	// Subscribe calls happened for everything that happens to sandboxes from
	// now on until ctx is done, one call at a time. It returns at once; what
	// was before, List tells.
	Subscribe(ctx context.Context, happened func(Event)) error

	// Listen calls said for everything that the daemons in sandboxes say to their
	// owners from now on until ctx is done, one call at a time. It returns at
	// once. While said is busy, they wait; who says too much for long is heard in
	// part. No line is told twice, and none after the event of its execution's
	// end.
	Listen(ctx context.Context, said func(Line)) error

	// Pause stops everything inside a sandbox and saves it. When it returns,
	// the snapshot is complete and durable, and the sandbox stands still: Kill
	// then ends it, or Thaw lets it go on. On an error it goes on by itself and
	// nothing of the snapshot is left. NotFound: that execution does not run
	// here. NoSpace: the disk cannot hold it. Exhausted: it would be larger than
	// allowed. Unavailable: the daemon inside does not answer, and should. In the
	// last three cases nothing was stopped.
	Pause(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, how Save) (Saved, error)

	// Thaw lets a sandbox go on that Pause stopped. One that was not stopped
	// is not an error.
	Thaw(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error

	// Export writes what a sandbox has written to its disk to to, as a tar stream:
	// the layer over its template, as runtime.Process says of it. The sandbox
	// stands still meanwhile, and goes on if it did before, whatever fails. What is
	// in the stream is whatever code inside wants. to gets no more once Export has
	// returned; a Write that hangs holds Export up, but not the sandbox once ctx
	// is done. NotFound: that execution does not run here. Exhausted: there are
	// more bytes than its disk could hold, because files have holes.
	// Unimplemented: the sandbox goes on with an engine that is too old.
	Export(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, to io.Writer) error

	// DeleteSnapshot removes a snapshot; its disk is given back soon after. One
	// that is not there is not an error.
	DeleteSnapshot(ctx context.Context, snapshot cove.SnapshotID) error

	// Snapshots returns the complete snapshots on this host.
	Snapshots(ctx context.Context) ([]cove.SnapshotID, error)

	// Sweep removes from the host's disk the snapshots that may go, and what
	// neither the order names nor anything that runs or is saved here needs. It
	// returns what it removed, or with DryRun would have. What cannot be removed
	// is left out of the list and told in the error.
	Sweep(ctx context.Context, order SweepOrder) ([]Garbage, error)

	// Dial connects to a TCP port of a sandbox, whether its service listens on
	// all addresses or on localhost only. The connection is reset when the
	// sandbox ends. NotFound: it does not run here. ErrPortClosed: nothing
	// listens there.
	Dial(ctx context.Context, id cove.SandboxID, port uint16) (net.Conn, error)
}

// Save says how Pause saves a sandbox.
type Save struct {
	Snapshot  cove.SnapshotID // the name it gets
	FilesOnly bool            // leave the memory out; the daemon inside must answer then
	Strict    bool            // the daemon inside must answer in any case
	Most      int64           // bytes that the snapshot may take; 0: as many as the disk has
}

// Saved tells of a snapshot that was made.
type Saved struct {
	Bytes        int64 // on disk
	Unresponsive bool  // the daemon inside did not answer before
}

// SweepOrder says what Sweep takes and what it leaves. Snapshots are named if
// they may go, because new ones may come at any time; builds if they must stay.
type SweepOrder struct {
	Snapshots []cove.SnapshotID // may go
	Builds    []cove.BuildID    // must stay
	OlderThan time.Duration     // what is younger stays: somebody may be about to need it
	DryRun    bool
}

// Garbage is something that nothing needs any more.
type Garbage struct {
	Kind  string `json:"kind"` // "snapshot", "template build", "daemon", "engine"
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"` // on disk
}

// ErrPortClosed says that the sandbox runs and nothing listens on the port.
var ErrPortClosed = errors.New("port is not open")

// Running is a sandbox that runs on a node.
type Running struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	EndAt     time.Time
}

// What happened to a sandbox.
type What string

// What may happen. After each but Due, it does not run any more.
const (
	Killed  What = "killed"  // somebody asked for it
	Expired What = "expired" // its time was up
	Crashed What = "crashed" // it ended by itself
	Due     What = "due"     // its time is up, it runs on, and somebody must pause it
)

// Line is what the daemon in a sandbox says to the sandbox's owner. Code inside
// can speak in its place, so it is not to be believed, only to be shown: it
// holds nothing but letters.
type Line struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	At        time.Time // when the host heard it
	Level     cove.LogLevel
	Logger    string // the part of the daemon
	Message   string // 4 KiB at most
}

// Event tells of a sandbox to which something happened.
type Event struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	What      What
	Reason    string // of a crash, in words that the sandbox's owner may see; may be empty
}
