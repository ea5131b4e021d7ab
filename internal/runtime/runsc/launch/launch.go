// Package launch is what package runsc says to the engine binary and what the
// engine answers: one JSON Request (to boot a sandbox) or Order (to one that
// runs) on standard input, one JSON Response on standard output.
//
// It is not the engine: it knows nothing of gVisor, so that the server which
// speaks it does not link the engine. Only runsc and runsc/engine import it.
// It starts no goroutines.
package launch

import "net/netip"

// Verb and OrderVerb are the arguments that select the launcher in the engine
// binary. Every other argument list belongs to gVisor's own command line.
const (
	Verb      = "cove-launch"
	OrderVerb = "cove-order"
)

// OutputFD is the launcher's file descriptor that becomes the standard output
// and error of the sandbox's init if the request says Output.
const OutputFD = 3

// ExportFD and DiskFD are the launcher's file descriptors for the order Export:
// where the tar stream goes, and the file that is the writable layer.
const (
	ExportFD = 3
	DiskFD   = 4
)

// Request describes a sandbox whose parts are already prepared on the host.
// All paths are absolute.
type Request struct {
	ID       string // container id, also the name of the control socket
	StateDir string // where the control socket is created; a short path
	Bundle   string // directory with the OCI config.json

	Rootfs     string   // EROFS image that is the root file system's lower layer
	Images     []string // EROFS images for the spec's erofs mounts, in their order
	UpperDir   string   // directory on whose file system the writable layer lives
	UpperBytes int64    // size of the writable layer

	Cgroups     []string // cgroup directories the sandbox lives in
	CPUs        int      // processors the sandbox sees
	MemoryBytes int64    // memory the sandbox sees; 0: the host's

	// Restore is the directory of a checkpoint to continue from; empty: init is
	// started. The sandbox runs when the response comes; its memory may still
	// be loading behind it.
	Restore string
	// FilesOnly says that the checkpoint has no memory: init is started on the
	// disk that was saved.
	FilesOnly bool

	Network  *Network // nil: loopback only
	Output   bool     // OutputFD is open
	PanicLog string   // file that gets the engine's last words; empty: none
	DebugLog string   // directory for the engine's debug log; empty: none
}

// Network is the interface the sandbox's own network stack takes over: a packet
// socket on Interface in the namespace at NetNS, with addresses that need not
// be configured there.
type Network struct {
	NetNS     string       // path of a network namespace
	Interface string       // name in that namespace and inside the sandbox
	Address   netip.Prefix // the sandbox's own address
	Gateway   netip.Addr
	MTU       int
}

// Response is the launcher's answer. If Error is empty, it was done.
type Response struct {
	PID    int    // the sandbox's process on the host; 0 for an Order
	Socket string // its control socket
	Error  string
}

// What an Order may ask for.
const (
	// Checkpoint stops all tasks and writes the sandbox's state into Dir, which
	// is empty. The tasks stay stopped; if it fails, they go on.
	Checkpoint = "checkpoint"
	// Thaw lets stopped tasks go on. Tasks that are not stopped must not be
	// thawed.
	Thaw = "thaw"
	// Export writes the writable layer to ExportFD. All tasks are stopped
	// meanwhile, and then as they were before. A SIGTERM has it given up.
	Export = "export"
)

// Unknown is how the answer to an order begins that the engine does not know,
// because it is older than who gives it.
const Unknown = "unknown order"

// Order is something for a sandbox that runs.
type Order struct {
	Do     string
	ID     string
	Socket string // its control socket
	Dir    string
	// FilesOnly leaves memory out of a checkpoint.
	FilesOnly bool
}
