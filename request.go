package cove

import "time"

// NewSandbox is a request to start a sandbox, with every default filled in by
// the surface that took it: the two generations of the protocol differ in them.
type NewSandbox struct {
	Template string        // as the caller wrote it; see ParseTemplateRef
	Timeout  time.Duration // from the moment it runs; at least one second
	Metadata map[string]string
	Env      map[string]string
	Secure   bool
	Internet *bool  // nil: not said, which means yes
	Key      string // the same request, repeated with the same key, makes one sandbox; empty: it is not repeated

	OnTimeout  OnTimeout     // empty: KillOnTimeout
	FilesOnly  bool          // a pause at the end leaves memory out
	AutoResume bool          // traffic resumes it when it is paused
	IdleAfter  time.Duration // see Lifecycle
}

// ForkResult is one of the sandboxes a fork was to make: it, or why it was not.
type ForkResult struct {
	Sandbox Sandbox
	Err     error
}

// Order is the order of a list by start time.
type Order string

// The orders.
const (
	Descending Order = "desc"
	Ascending  Order = "asc"
)

// Cursor is the position after the last sandbox of a page. Its zero value is
// the beginning.
type Cursor struct {
	StartedAt time.Time
	ID        SandboxID
}

// SandboxFilter selects sandboxes of a team.
type SandboxFilter struct {
	States       []State // empty: Running
	Metadata     map[string]string
	Template     string    // as the caller wrote it; empty: any
	StartedAfter time.Time // inclusive, by microsecond; zero: any
	Order        Order     // empty: Descending
	After        Cursor
	Limit        int // at least 1
}

// SandboxPage is one page of a list.
type SandboxPage struct {
	Sandboxes []Sandbox
	Next      Cursor // zero: this is the last page
	Running   int    // how many of the team's sandboxes run, filter or not
}

// Pause says how a sandbox is to be paused.
type Pause struct {
	FilesOnly bool // leave its memory out
	Strict    bool // refuse if the daemon inside does not answer
}

// Resume says how a paused sandbox is to go on.
type Resume struct {
	Timeout   time.Duration // from the moment it runs
	FilesOnly bool          // start it on its files, whatever memory was saved
	OnTimeout OnTimeout     // empty: as it was
}

// NewSnapshot is a request to keep a snapshot of a running sandbox.
type NewSnapshot struct {
	Name      string // [namespace/]alias[:tag]; empty: it is known by its identifier
	FilesOnly bool
}

// KeyedRequest is a request to make a sandbox that its caller may repeat.
type KeyedRequest struct {
	Team      TeamID
	Key       string
	Digest    string // of what was asked for
	Sandbox   SandboxID
	ClaimedAt time.Time
}
