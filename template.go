package cove

import (
	"regexp"
	"strings"
	"time"
)

// TemplateID names a template: lower-case letters and digits.
type TemplateID string

// BuildID names one attempt to build a template. It is a UUID, because official
// clients parse it as one.
type BuildID string

// BuildStatus is where a build is.
type BuildStatus string

// The statuses of a build.
const (
	BuildWaiting BuildStatus = "waiting"
	BuildRunning BuildStatus = "building"
	BuildReady   BuildStatus = "ready"
	BuildError   BuildStatus = "error"
)

// BaseTemplate is the alias of the template every installation has.
const BaseTemplate = "base"

// Source is what made a template.
type Source string

// The sources of templates.
const (
	FromRecipe  Source = "recipe"  // builds
	FromSandbox Source = "sandbox" // snapshots that its owner took of sandboxes
)

// Template is the record of a template.
type Template struct {
	ID        TemplateID
	Team      TeamID // empty: offered to every team by the installation
	Alias     string // unique within the team; the identifier if it was given no name
	Source    Source
	Public    bool
	CreatedAt time.Time
}

// Build is the record of one build of a template.
type Build struct {
	ID        BuildID
	Template  TemplateID
	Status    BuildStatus
	Reason    string // why the status is BuildError, in words for the caller
	Resources Resources
	Envd      string // version of the daemon it was built with
	User      string
	Workdir   string
	CreatedAt time.Time
	EndedAt   time.Time // zero while it runs

	// Of one that was made from a sandbox:
	Snapshot      SnapshotID // what sandboxes of it go on from; empty: they start afresh
	FilesOnly     bool       // Snapshot has no memory
	SnapshotBytes int64      // of Snapshot on disk
	Origin        SandboxID
}

// Named reports whether the template has a name beside its identifier.
func (t Template) Named() bool { return t.Alias != string(t.ID) }

// DefaultTag is the tag of a reference that names none.
const DefaultTag = "default"

var (
	aliasPattern = regexp.MustCompile(`^[a-z0-9_-]{1,128}$`)
	tagPattern   = regexp.MustCompile(`^[a-z0-9_.-]{1,128}$`)
)

// TemplateRef is how a caller names a template: [namespace/]alias[:tag].
type TemplateRef struct {
	Namespace string // empty: the caller's own, then the installation's
	Alias     string // alias or template identifier
	Tag       string // DefaultTag when none was given
}

// ParseTemplateRef parses a reference. Upper case is folded. The error is
// Invalid and says what is wrong.
func ParseTemplateRef(s string) (TemplateRef, error) {
	const op = "cove.ParseTemplateRef"
	ref := TemplateRef{Alias: strings.ToLower(strings.TrimSpace(s)), Tag: DefaultTag}
	if ns, alias, ok := strings.Cut(ref.Alias, "/"); ok {
		ref.Namespace, ref.Alias = ns, alias
		if !aliasPattern.MatchString(ns) {
			return TemplateRef{}, E(Invalid, op, nil, "invalid template name %q: the namespace may have only letters, digits, '-' and '_'", s)
		}
	}
	if alias, tag, ok := strings.Cut(ref.Alias, ":"); ok {
		ref.Alias, ref.Tag = alias, tag
		if !tagPattern.MatchString(tag) {
			return TemplateRef{}, E(Invalid, op, nil, "invalid template name %q: the tag may have only letters, digits, '-', '_' and '.'", s)
		}
	}
	if !aliasPattern.MatchString(ref.Alias) {
		return TemplateRef{}, E(Invalid, op, nil, "invalid template name %q: it may have only letters, digits, '-' and '_'", s)
	}
	return ref, nil
}
