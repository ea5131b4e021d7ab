// Package runtime is the contract for running one prepared sandbox: boot it,
// find it again after the server was restarted, end it.
//
// It is not a lifecycle: network, cgroup and directories are prepared and taken
// away by the caller. Implementations are runsc (gVisor) and runtimetest.Fake;
// both pass runtimetest. The contract may be imported by everything above the
// ground packages, an implementation only by package server and by tests.
package runtime

import (
	"context"
	"net/netip"
	"os"
)

// A Runtime boots sandboxes. Its methods may be called concurrently.
type Runtime interface {
	// Start boots the sandbox and starts its init process. It returns once init
	// runs, not once it is ready. On an error nothing of the sandbox is left.
	Start(ctx context.Context, spec Spec) (Process, error)

	// Adopt returns the process of a sandbox that an earlier server started.
	// A sandbox that has ended is a cove.NotFound error, after what a sandbox's
	// sudden end leaves behind (its control socket) was removed.
	Adopt(ctx context.Context, h Handle) (Process, error)

	// Clear ends and removes whatever there is of a sandbox whose handle is not
	// known, because the server was killed while it started it. Nothing being
	// there is not an error.
	Clear(ctx context.Context, id string) error
}

// A Process is a booted sandbox on this host.
type Process interface {
	// Handle returns what Adopt needs.
	Handle() Handle

	// Done is closed when the sandbox has ended, by itself or by Kill.
	Done() <-chan struct{}

	// Checkpoint stops everything inside and writes its state, memory and disk,
	// into dir, which must be empty and survives the sandbox; with filesOnly,
	// only the disk, from which init is started anew. Everything stays
	// stopped, so that nothing happens after the state was written; Thaw lets it
	// go on. On an error it goes on by itself. What was written is in the page
	// cache: the caller syncs it if it must be durable.
	Checkpoint(ctx context.Context, dir string, filesOnly bool) error

	// Thaw lets a sandbox go on that Checkpoint stopped. It must not be called
	// for one that is not stopped.
	Thaw(ctx context.Context) error

	// Export writes what the root file system's writable layer holds to to, as a
	// tar stream in overlay form: what was removed of the image is a character
	// device 0/0, and a directory that hides the image's has the attribute
	// trusted.overlay.opaque with value "y". Sockets are left out, as are
	// attributes whose value is not text. Everything inside stands still
	// meanwhile, so all of it is of one moment, and then goes on, unless it stood
	// still before. dir is its Spec's Dir.
	//
	// Files are as long in the stream as they look inside, holes and all: whoever
	// reads it counts the bytes, and closes his end when it is enough. Then, or
	// if ctx ends first, it fails. NotFound: the sandbox has ended. Unimplemented:
	// its engine is too old.
	Export(ctx context.Context, dir string, to *os.File) error

	// Usage returns what the sandbox takes. dir is its Spec's Dir. It fails for
	// one that has ended.
	Usage(dir string) (Usage, error)

	// Kill ends the sandbox at once and returns when its process is gone and
	// nothing is left of it. Killing an ended sandbox is not an error. The
	// error is cove.DeadlineExceeded if ctx ends first.
	Kill(ctx context.Context) error
}

// PanicLog is the file in a Spec's Dir in which an engine that crashes leaves
// its last words.
const PanicLog = "panic.log"

// Handle finds a running sandbox again. It is stored on disk as JSON.
type Handle struct {
	ID     string `json:"id"`
	PID    int    `json:"pid"`
	Start  string `json:"start"` // the process's start time in the kernel's words; tells a reused PID
	Socket string `json:"socket"`
	Engine string `json:"engine"` // version of the engine that runs it
}

// Spec says what to boot. Paths are on the host and absolute.
type Spec struct {
	ID       string
	Dir      string // a directory of the sandbox's own, on the disk that holds its writable layer
	Rootfs   string // EROFS image
	Images   []Image
	Args     []string
	Env      []string // "NAME=value"
	Hostname string

	// Restore is the directory of a checkpoint to continue from; empty: init is
	// started. Everything but Dir, Cgroups, Network, Hostname, Env and Output
	// must be as it was for the sandbox that was checkpointed.
	Restore string
	// FilesOnly says that the checkpoint was written so.
	FilesOnly bool
	// Engine is the version of the engine that wrote the checkpoint: no other
	// can continue from it. Empty: the newest. NotFound: it is not there.
	Engine string

	CPUs        int
	MemoryBytes int64 // what the sandbox sees; the limit is the cgroup's
	DiskBytes   int64 // size of the writable layer
	Cgroups     []string
	Network     *Network // nil: loopback only

	// Output is the standard output and error of init; nil: discarded. The
	// caller may close it as soon as Start has returned.
	Output *os.File
}

// Image is an EROFS image mounted read-only inside the sandbox.
type Image struct {
	Source      string
	Destination string
}

// Network is the interface the sandbox takes over; see package network.
type Network struct {
	NetNS     string // path of a network namespace
	Interface string
	Address   netip.Prefix
	Gateway   netip.Addr
	MTU       int
}
