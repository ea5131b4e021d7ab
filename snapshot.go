package cove

import (
	"regexp"
	"time"
)

// SnapshotID names the saved state of a sandbox, the immutable thing that a
// sandbox goes on from.
type SnapshotID string

var snapshotIDPattern = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

// Valid reports whether id can be the identifier of a snapshot.
func (id SnapshotID) Valid() bool { return snapshotIDPattern.MatchString(string(id)) }

// NamedSnapshot is a snapshot that its owner keeps, to make sandboxes from: a
// build of a template, under one of the template's tags.
type NamedSnapshot struct {
	Template Template
	Build    Build
	Tag      string
	TaggedAt time.Time // microsecond precision, UTC
}

// SnapshotFilter selects snapshots that a team keeps.
type SnapshotFilter struct {
	Origin SandboxID   // of this sandbox only; empty: any
	Name   string      // alias or identifier of the template; empty: any
	Tag    string      // empty: any
	After  SnapshotPos // position of the last one of the page before
	Limit  int         // at least 1
}

// SnapshotPos is a position in a list of snapshots, newest first. Its zero value
// is the beginning.
type SnapshotPos struct {
	TaggedAt time.Time
	Template TemplateID
	Tag      string
}

// SnapshotPage is one page of a list.
type SnapshotPage struct {
	Snapshots []NamedSnapshot
	Next      SnapshotPos // zero: this is the last page
}

// Usage is what a team takes of the installation.
type Usage struct {
	Sandboxes     int   // that run or are on their way to it
	SnapshotBytes int64 // of paused sandboxes and of its builds, those made from sandboxes or not
}
