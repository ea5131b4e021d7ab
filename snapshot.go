package cove

import "regexp"

// SnapshotID names the saved state of a sandbox, the immutable thing that a
// sandbox goes on from.
type SnapshotID string

var snapshotIDPattern = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

// Valid reports whether id can be the identifier of a snapshot.
func (id SnapshotID) Valid() bool { return snapshotIDPattern.MatchString(string(id)) }
