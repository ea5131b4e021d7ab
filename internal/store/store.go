// Package store is the contract for the records of an installation: teams,
// keys, templates, builds, sandboxes, and what those used and went through. The
// store is the truth; what a node keeps on disk serves only to find its running
// sandboxes again.
//
// It holds no SQL; implementations (sqlite) do, and each passes storetest. An
// error is a *cove.Error whose kind says what happened; a driver's error never
// gets further than here. The contract may be imported by everything above the
// ground packages, an implementation only by package server and by tests.
package store

import (
	"context"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A Store keeps records. Its methods may be called concurrently; each is one
// transaction. Returned values share no memory with the store.
type Store interface {
	Teams
	Templates
	Builds
	Snapshots
	Requests
	Sandboxes
	Metrics
	Logs

	// Secret returns the installation's secret of that name: 32 bytes of
	// randomness, made at the first call and the same ever after.
	Secret(ctx context.Context, name string) ([]byte, error)

	// Close releases the store. Calls after it fail.
	Close() error
}

// Teams are teams and their keys.
type Teams interface {
	// CreateTeam adds a team. Conflict: the identifier is taken.
	CreateTeam(ctx context.Context, team cove.Team) error
	// Team returns a team. NotFound: there is none of that identifier.
	Team(ctx context.Context, id cove.TeamID) (cove.Team, error)
	// Teams returns all teams, oldest first.
	Teams(ctx context.Context) ([]cove.Team, error)
	// CreateKey adds a key. Conflict: identifier or hash are taken. NotFound:
	// there is no such team.
	CreateKey(ctx context.Context, key cove.Key) error
	// KeyByHash returns the key with that hash. NotFound: there is none.
	KeyByHash(ctx context.Context, hash string) (cove.Key, error)
}

// Templates are templates.
type Templates interface {
	// CreateTemplate adds a template. Conflict: the identifier, or the alias
	// within the team, is taken.
	CreateTemplate(ctx context.Context, template cove.Template) error
	// TemplateByName returns the template with that alias or identifier which
	// the team may use: its own first, then the installation's, then a public
	// one by its identifier. NotFound: there is none.
	TemplateByName(ctx context.Context, team cove.TeamID, name string) (cove.Template, error)
	// PublicTemplate returns the public template of an alias whose team's Slug is
	// the namespace; of two, the older team's. NotFound: there is none.
	PublicTemplate(ctx context.Context, namespace, alias string) (cove.Template, error)
	// ListTemplates returns the templates of a team that are made by builds,
	// newest first. after is the last one of the page before; its zero value is
	// the beginning.
	ListTemplates(ctx context.Context, team cove.TeamID, after cove.TemplatePos, limit int) ([]cove.TemplateInfo, error)
	// TemplateInfo returns a template with what has become of it. NotFound: there
	// is none of that identifier.
	TemplateInfo(ctx context.Context, template cove.TemplateID) (cove.TemplateInfo, error)
	// SetPublic says whether other teams may use a team's template. NotFound: the
	// team has none of that identifier.
	SetPublic(ctx context.Context, team cove.TeamID, template cove.TemplateID, public bool) error
	// DeleteTemplate removes a team's template with its builds, tags and logs.
	// NotFound: the team has none of that identifier that is made by builds; for
	// others there is DropSnapshot. Conflict: a sandbox that was made from it,
	// whoever owns that, is on record.
	DeleteTemplate(ctx context.Context, team cove.TeamID, template cove.TemplateID) error

	// AssignTags names a template's build by tags from a time on, also by tags
	// that named another one; but one that was given to a build later than that
	// stays with it. A build that was made from a sandbox goes with its last tag.
	// NotFound: the template has no such build. Conflict: it is not ready.
	AssignTags(ctx context.Context, template cove.TemplateID, build cove.BuildID, tags []string, at time.Time) error
	// RemoveTags takes tags from a template. A build that was made from a sandbox
	// goes with its last tag, and its template with the last build. NotFound: the
	// template does not have one of the tags; then none is taken.
	RemoveTags(ctx context.Context, template cove.TemplateID, tags []string) error
	// Tags returns a template's tags, those that were given last first.
	Tags(ctx context.Context, template cove.TemplateID) ([]cove.TemplateTag, error)
	// TaggedBuild returns the build that a template's tag names. NotFound: it
	// has no such tag.
	TaggedBuild(ctx context.Context, template cove.TemplateID, tag string) (cove.Build, error)
}

// Builds are builds of templates.
type Builds interface {
	// RequestBuild adds a build that waits to be begun, and its template if the
	// team has none of that alias. It returns the template that the build is of.
	// Conflict: the alias is that of a template which is made from sandboxes.
	RequestBuild(ctx context.Context, template cove.Template, build cove.Build) (cove.Template, error)
	// CreateBuild adds a build. If it is ready, its tags name it from EndedAt on.
	// NotFound: there is no such template.
	CreateBuild(ctx context.Context, build cove.Build) error
	// BeginBuild moves a build that waits on to BuildRunning. NotFound: there is
	// none of that identifier. Conflict: it does not wait.
	BeginBuild(ctx context.Context, build cove.BuildID) error
	// UpdateBuild replaces a build that has not ended, but for its template, its
	// tags and CreatedAt. Once it is ready its tags name it, from EndedAt on; see
	// AssignTags. NotFound: there is none of that identifier. Conflict: it has
	// ended.
	UpdateBuild(ctx context.Context, build cove.Build) error
	// Build returns a build. NotFound: there is none of that identifier.
	Build(ctx context.Context, id cove.BuildID) (cove.Build, error)
	// LatestBuild returns a template's newest build with one of the statuses.
	// NotFound: there is none.
	LatestBuild(ctx context.Context, template cove.TemplateID, statuses ...cove.BuildStatus) (cove.Build, error)
	// ListBuilds returns a template's builds, newest first. after is the last one
	// of the page before; its zero value is the beginning.
	ListBuilds(ctx context.Context, template cove.TemplateID, after cove.BuildPos, limit int) ([]cove.Build, error)
	// BuildByKey returns a team's newest build that is ready and has the key.
	// NotFound: there is none, or the key is empty.
	BuildByKey(ctx context.Context, team cove.TeamID, key string) (cove.Build, error)
	// CurrentBuilds returns the builds whose root file systems must stay even if
	// no snapshot lies on them: those that are not finished; of those that are
	// ready and have no snapshot, the ones that a tag names and the newest of each
	// template; and the Root of each of these.
	CurrentBuilds(ctx context.Context) ([]cove.BuildID, error)
	// UnfinishedBuilds returns the builds that wait or run, oldest first.
	UnfinishedBuilds(ctx context.Context) ([]cove.Build, error)
	// PruneBuilds removes, with their logs, the builds that ended before a time and
	// that no tag names. Those stay that are the newest of their template, ready
	// or at all, or that a sandbox on record was made from, and so do all of the
	// installation's own templates and all that were made from sandboxes.
	PruneBuilds(ctx context.Context, before time.Time) error

	// AddBuildLines adds lines to a build's log as long as that has fewer than
	// keep. NotFound: there is no such build.
	AddBuildLines(ctx context.Context, build cove.BuildID, lines []cove.BuildLine, keep int) error
	// BuildLines returns lines of a build's log, in the order in which they were
	// added; none if there is no such build.
	BuildLines(ctx context.Context, build cove.BuildID, filter cove.BuildLineFilter) ([]cove.BuildLine, error)

	// Layer returns a team's layer. NotFound: it has none of that key.
	Layer(ctx context.Context, team cove.TeamID, key string) (cove.Layer, error)
	// KeepLayer adds a layer, or puts it in the place of its team's of that key.
	KeepLayer(ctx context.Context, layer cove.Layer) error
	// UseLayer notes that a layer was used at a time. That there is none is not
	// an error.
	UseLayer(ctx context.Context, team cove.TeamID, key string, at time.Time) error
	// PruneLayers removes the layers that were last used before a time, and the
	// least recently used until the others, of all teams, take no more than so
	// many bytes. A snapshot that several layers have is counted once.
	PruneLayers(ctx context.Context, since time.Time, bytes int64) error
}

// Snapshots are the snapshots that teams keep, as builds of templates.
type Snapshots interface {
	// KeepSnapshot adds a build that was made from a sandbox, gives it the tag,
	// which it takes from the build that had it, and makes the template if the
	// team has none of that alias. Builds of the template that no tag names any
	// more are removed. It returns what is kept now, and those of the removed
	// builds whose snapshot nothing else needs. Conflict: the alias is that of a
	// template which is not made from sandboxes.
	KeepSnapshot(ctx context.Context, s cove.NamedSnapshot) (kept cove.NamedSnapshot, superseded []cove.Build, err error)
	// ListSnapshots returns a page of what a team keeps, newest first.
	ListSnapshots(ctx context.Context, team cove.TeamID, filter cove.SnapshotFilter) (cove.SnapshotPage, error)
	// DropSnapshot takes a tag from a team's template, or all of them if tag is
	// empty, and removes the template if it has none left. It removes and returns
	// builds as KeepSnapshot does. NotFound: there is nothing to remove.
	DropSnapshot(ctx context.Context, team cove.TeamID, template cove.TemplateID, tag string) ([]cove.Build, error)
	// KeptSnapshots returns the snapshots that builds and layers need.
	KeptSnapshots(ctx context.Context) ([]cove.SnapshotID, error)
	// Usage returns what a team takes of the installation. A snapshot that several
	// builds have is counted once.
	Usage(ctx context.Context, team cove.TeamID) (cove.Usage, error)
}

// Requests are the requests to make a sandbox that may be repeated.
type Requests interface {
	// ClaimRequest records that a request makes a sandbox. If the team made one
	// with the same key before, that one is returned and nothing changes.
	ClaimRequest(ctx context.Context, r cove.KeyedRequest) (earlier cove.KeyedRequest, claimed bool, err error)
	// ForgetRequest forgets the request that was to make a sandbox. That there
	// is none is not an error.
	ForgetRequest(ctx context.Context, sandbox cove.SandboxID) error
	// FinishRequest notes that a request made its sandbox.
	FinishRequest(ctx context.Context, sandbox cove.SandboxID) error
	// ForgetUnfinished forgets the requests whose sandbox was never made.
	ForgetUnfinished(ctx context.Context) error
	// ForgetRequests forgets what was claimed before a time.
	ForgetRequests(ctx context.Context, before time.Time) error
}

// Sandboxes are the sandboxes that have not ended.
type Sandboxes interface {
	// CreateSandbox adds a sandbox, and counts it with its template. Conflict: the
	// identifier is taken.
	CreateSandbox(ctx context.Context, sandbox cove.Sandbox) error
	// Sandbox returns a team's sandbox. NotFound: it has none of that
	// identifier, whoever else has.
	Sandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error)
	// SandboxByID returns anybody's sandbox, for the edge and for
	// reconciliation, never for a tenant. NotFound: there is none.
	SandboxByID(ctx context.Context, id cove.SandboxID) (cove.Sandbox, error)
	// ListSandboxes returns a page of a team's sandboxes.
	ListSandboxes(ctx context.Context, team cove.TeamID, filter cove.SandboxFilter) (cove.SandboxPage, error)
	// NodeSandboxes returns all sandboxes of a node, in any state.
	NodeSandboxes(ctx context.Context, node cove.NodeID) ([]cove.Sandbox, error)
	// Transition moves a sandbox into another state and sets what the change
	// names. NotFound: there is no such sandbox
	// or execution. Conflict: the state it has does not allow it.
	Transition(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, change Change) (cove.Sandbox, error)
	// MoveEnd sets when a running sandbox of a team ends. With extend, an
	// earlier end changes nothing. It returns the sandbox as it is now.
	// NotFound: the team has no such sandbox. Conflict: it does not run.
	MoveEnd(ctx context.Context, team cove.TeamID, id cove.SandboxID, end time.Time, extend bool) (cove.Sandbox, error)
	// DeleteSandbox removes a sandbox's record. One that is not there is not
	// an error.
	DeleteSandbox(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error
}

// Change is what Transition does. A field but To that is zero changes nothing.
type Change struct {
	To        cove.State
	StartedAt time.Time
	EndAt     time.Time
	Execution cove.ExecutionID
	Snapshot  *SnapshotChange
	OnTimeout cove.OnTimeout
}

// SnapshotChange is a sandbox's new snapshot; the zero value is none.
type SnapshotChange struct {
	ID           cove.SnapshotID
	FilesOnly    bool
	Unresponsive bool
	Bytes        int64
}
