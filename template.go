package cove

import (
	"regexp"
	"strings"
	"time"
)

// TemplateID names a template: lower-case letters and digits.
type TemplateID string

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

// TemplateInfo is a template with what has become of it.
type TemplateInfo struct {
	Template
	Build     Build     // the newest that is ready, else the newest; zero: it has none
	Builds    int       // how many there were, with those that are not kept any more
	Spawned   int       // how many sandboxes were made from it, with those that have ended
	SpawnedAt time.Time // when the last one was; zero: never
	UpdatedAt time.Time // when its last build was requested or ended; without one, when it was made
}

// TemplatePos is a position in a list of templates, newest first. Its zero value
// is the beginning.
type TemplatePos struct {
	CreatedAt time.Time
	ID        TemplateID
}

// BuildPos is a position in a list of builds, newest first. Its zero value is the
// beginning.
type BuildPos struct {
	CreatedAt time.Time
	ID        BuildID
}

// TemplateTag is a name of one of a template's builds.
type TemplateTag struct {
	Tag       string
	Build     BuildID
	CreatedAt time.Time // when the tag was given to that build
}

// Named reports whether the template has a name beside its identifier.
func (t Template) Named() bool { return t.Alias != string(t.ID) }

// DefaultTag is the tag of a reference that names none.
const DefaultTag = "default"

var (
	aliasPattern = regexp.MustCompile(`^[a-z0-9_-]{1,128}$`)
	tagPattern   = regexp.MustCompile(`^[a-z0-9_.-]{1,128}$`)
	uuidPattern  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// ParseTag parses a tag that is to be given to a build. Upper case is folded.
// The error is Invalid and says what is wrong.
func ParseTag(s string) (string, error) {
	const op = "cove.ParseTag"
	tag := strings.ToLower(strings.TrimSpace(s))
	if !tagPattern.MatchString(tag) {
		return "", E(Invalid, op, nil, "invalid tag %q: it may have only letters, digits, '-', '_' and '.', and at most 128 of them", s)
	}
	// After a colon it would be taken for the build of that identifier.
	if BuildID(tag).Valid() {
		return "", E(Invalid, op, nil, "invalid tag %q: it must not look like the identifier of a build", s)
	}
	return tag, nil
}

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
