package orchestrator

import (
	"context"
	"net"
	"net/netip"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// The interfaces below are what a sandbox is put together from. Package server
// fits the mechanisms to them; tests put failing parts in their place.

// Network gives each sandbox a slot of its own.
type Network interface {
	// Acquire returns a free slot with its policy in force. Without internet
	// nothing leaves it but answers.
	Acquire(ctx context.Context, internet bool) (Slot, error)
	// Adopt returns a slot that an earlier server acquired.
	Adopt(ctx context.Context, index int, internet bool) (Slot, error)
	// Sweep gives back the slots of this server that are not to be kept.
	Sweep(ctx context.Context, keep map[int]bool) error
}

// Slot is a sandbox's place in the network.
type Slot interface {
	Index() int
	Runtime() runtime.Network
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	Release(ctx context.Context) error
}

// Cgroups limit what a sandbox takes of the host.
type Cgroups interface {
	// Create makes a group and returns its directories; a process that writes
	// itself into the cgroup.procs of each is limited and counted.
	Create(ctx context.Context, id cove.SandboxID, r cove.Resources) (dirs []string, err error)
	// Memory returns how many bytes of memory the group uses.
	Memory(ctx context.Context, id cove.SandboxID) (int64, error)
	// Load returns what the group has taken lately.
	Load(ctx context.Context, id cove.SandboxID) (Load, error)
	// Remove takes the group away once its last process is gone. One that is
	// not there is not an error.
	Remove(ctx context.Context, id cove.SandboxID) error
	// List returns the groups of this server.
	List(ctx context.Context) ([]cove.SandboxID, error)
}

// Images are the file systems sandboxes start from.
type Images interface {
	// Root returns the root file system of a build. NotFound: this host does
	// not have it.
	Root(ctx context.Context, build cove.BuildID) (path string, err error)
	// Tools returns the image with the daemon, which every sandbox has mounted:
	// the one of that name, or the newest if name is empty. NotFound: this host
	// does not have it.
	Tools(ctx context.Context, name string) (runtime.Image, error)
}

// Stock is what lies on the host's disk for sandboxes to start from.
type Stock interface {
	// List returns what there is.
	List(ctx context.Context) ([]Item, error)
	// KeepEngine sees that an engine stays for the snapshots that it writes.
	KeepEngine(ctx context.Context, name string) error
	// Remove removes an item that List returned. One that is gone is not an
	// error.
	Remove(ctx context.Context, item Item) error
}

// Item is something of the stock.
type Item struct {
	Kind  Kind
	Name  string // of a build, an image with the daemon, an engine's version
	Bytes int64
	Made  time.Time
	Fixed bool // the server itself needs it
}

// Kind says what an Item is.
type Kind string

// The kinds of items.
const (
	BuildItem  Kind = "template build"
	DaemonItem Kind = "daemon"
	EngineItem Kind = "engine"
)

// Daemon is the host's side of the program that is PID 1 in every sandbox.
type Daemon interface {
	// Command returns the program, its arguments and its environment.
	Command(spec cove.Spec, nameServer netip.Addr) (args, env []string)
	// Init tells a daemon that runs who it is: token, environment, defaults.
	// identity is the sandbox whose control token it knows.
	Init(ctx context.Context, identity cove.SandboxID, spec cove.Spec, dial DialFunc) error
	// Begin begins the spec's start command, once Init has told the daemon who it
	// is, and returns when it runs. What it does then, nobody is told. The error
	// has words for the sandbox's owner.
	Begin(ctx context.Context, spec cove.Spec, dial DialFunc) error
	// Health reports whether the daemon answers.
	Health(ctx context.Context, dial DialFunc) error
	// Connect connects to a port on the sandbox's own localhost. The error is
	// node.ErrPortClosed if nothing listens there.
	Connect(ctx context.Context, identity cove.SandboxID, dial DialFunc, port uint16) (net.Conn, error)
	// Listen calls said for each line of the daemon's journal after the one of
	// that number (-1: the lines to come), and then for each when it is said,
	// until ctx is done, the connection ends or said returns false. While said
	// is busy nothing is read. Before the first line comes one without a
	// message, and its number. Unimplemented: this daemon has no journal.
	Listen(ctx context.Context, identity cove.SandboxID, dial DialFunc, after int64, said func(Said) bool) error
	// ReadyLine is the first line the daemon prints once it can be reached.
	ReadyLine() string
	// Port is where it listens.
	Port() uint16
}

// DialFunc connects to the daemon of one sandbox.
type DialFunc func(ctx context.Context) (net.Conn, error)
