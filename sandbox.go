package cove

import (
	"maps"
	"regexp"
	"slices"
	"time"
)

// SandboxID names a sandbox for its whole life, pauses included. It is one DNS
// label without hyphens, because "<port>-<id>" is the left-most label of the
// sandbox's host names.
type SandboxID string

var sandboxIDPattern = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

// Valid reports whether id can be the identifier of a sandbox.
func (id SandboxID) Valid() bool { return sandboxIDPattern.MatchString(string(id)) }

// ExecutionID names one life of a sandbox: from start or resume to pause or
// kill. Work meant for one life is pinned to it, so that it cannot hit the next.
type ExecutionID string

// State is where a sandbox is in its life.
type State string

// The states. A sandbox that has ended has no record and so no state.
const (
	Starting State = "starting" // recorded, not yet usable
	Running  State = "running"
	Pausing  State = "pausing"  // stands still while it is saved
	Paused   State = "paused"   // nothing of it runs; its snapshot is complete
	Resuming State = "resuming" // being started from its snapshot, which is kept until it runs
	Killing  State = "killing"  // being ended; what is left must be removed
)

var nextStates = map[State][]State{
	Starting: {Running, Killing},
	Running:  {Pausing, Killing},
	Pausing:  {Running, Paused, Killing},
	Paused:   {Resuming, Killing},
	Resuming: {Running, Paused, Killing},
	Killing:  {},
}

// CanBecome reports whether the state change from s to next is legal.
func (s State) CanBecome(next State) bool { return slices.Contains(nextStates[s], next) }

// Transient reports whether s ends by itself: something is being done.
func (s State) Transient() bool { return s != Running && s != Paused }

// OnTimeout is what happens to a sandbox when its time is up.
type OnTimeout string

// What may happen.
const (
	KillOnTimeout  OnTimeout = "kill"
	PauseOnTimeout OnTimeout = "pause"
)

// Lifecycle is what a sandbox's owner wants done without being there. It is
// kept over every pause and resume.
type Lifecycle struct {
	OnTimeout  OnTimeout // empty: KillOnTimeout
	FilesOnly  bool      // a pause at the end leaves memory out
	AutoResume bool      // traffic to a paused sandbox resumes it
	// IdleAfter is how long it may be idle until it is paused: no request to it
	// under way and hardly any processor time used. 0: for ever.
	IdleAfter time.Duration
	// Timeout is the life that was asked for when the sandbox was created; one
	// that traffic resumes gets it again.
	Timeout time.Duration
}

// Resources are the limits of a sandbox.
type Resources struct {
	CPUs     int
	MemoryMB int // MiB
	DiskMB   int // MiB of writable layer
}

// EngineMB is how much memory the engine may take beside a sandbox's own, in MiB:
// its own tens of MiB, what it needs for each process inside, and room for the
// guard inside to act in when somebody takes memory faster than it can look. It
// is a limit and reserves nothing.
const EngineMB = 640

// guardMB is the part of EngineMB that is left to the guard: a third of a second
// of what two processors can take, on a host that has no time for it.
const guardMB = 256

// SpareProcesses is how many of a sandbox's processes one command, with all that
// comes of it, leaves to the others.
const SpareProcesses = 32

// MaxProcesses returns how many processes a sandbox with that much memory can
// have, whoever makes them. So many live in what the host grants, without what
// is left to the guard, even if all of them are copies that a fork bomb in
// Python makes of itself: each of those takes 4.4 MiB, a seventh of it in the
// engine.
func MaxProcesses(memoryMB int) int { return min((memoryMB+EngineMB-guardMB)/5, 2000) }

// Spec is what a sandbox is started from: everything the node needs to know.
type Spec struct {
	ID        SandboxID
	Execution ExecutionID
	Template  TemplateID
	Build     BuildID
	Resources Resources
	Env       map[string]string // visible to every process of the sandbox
	Token     string            // access token of its envd; empty: open
	Internet  bool              // whether it reaches the internet at all
	EndAt     time.Time         // its time is up then; the node itself sees to it
	OnTimeout OnTimeout         // what the node does then: end it, or tell who will pause it
	IdleAfter time.Duration     // see Lifecycle; the node tells it with what it measures
	Snapshot  SnapshotID        // what to go on from; empty: a fresh start
	Unused    bool              // nobody will use it: its daemon is not told who it is
	User      string            // default user of processes and files
	Workdir   string            // default working directory; empty: the user's home
	Start     StartCommand      // what the node runs if Snapshot has no memory; otherwise it runs already
}

// StartCommand is the command that runs in every sandbox of a template from its
// beginning, as the default user in the default working directory.
type StartCommand struct {
	Command string            // for a login shell; empty: there is none
	Env     map[string]string // on top of the sandbox's own variables
}

// Sandbox is the record of a sandbox.
type Sandbox struct {
	ID        SandboxID
	Execution ExecutionID
	Team      TeamID
	Template  TemplateID
	Alias     string // name the template was asked for by; may be empty
	Build     BuildID
	Node      NodeID
	State     State
	Resources Resources
	StartedAt time.Time // microsecond precision, UTC
	EndAt     time.Time // microsecond precision, UTC
	Metadata  map[string]string
	Env       map[string]string
	Secure    bool  // envd asks for the access token
	Internet  *bool // as asked for; nil: not said, which means yes
	Envd      string
	Lifecycle Lifecycle
	Snapshot  SnapshotID // of a sandbox that is Pausing, Paused or Resuming; else empty
	FilesOnly bool       // Snapshot has no memory
	// Unresponsive says that the daemon in Snapshot did not answer when it was
	// taken: its memory would bring that back.
	Unresponsive  bool
	SnapshotBytes int64  // of Snapshot on disk
	User          string // default user of processes and files; its template's when it was made
	Workdir       string // default working directory; empty: the user's home
}

// Clone returns a copy that shares no memory with s.
func (s Sandbox) Clone() Sandbox {
	s.Metadata = maps.Clone(s.Metadata)
	s.Env = maps.Clone(s.Env)
	if s.Internet != nil {
		v := *s.Internet
		s.Internet = &v
	}
	return s
}
