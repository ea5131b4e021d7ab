// Package api is the REST surface: it turns requests of the wire into calls of
// the control plane, and what comes back into answers. The wire is
// spec/openapi.yaml; its types stop here.
//
// It decides nothing about sandboxes, keeps no state and starts no goroutines;
// it is handlers, not a server. Only package server may import it.
//
// Every field of a request is honoured or refused: one this server does not
// serve yet answers 501 and one it does not know answers 400, both by name.
package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Control is what the surface needs of the control plane. The errors it returns
// are *cove.Error where a caller may care.
type Control interface {
	// CreateSandbox returns once the sandbox can be used.
	CreateSandbox(ctx context.Context, team cove.TeamID, req cove.NewSandbox) (cove.Sandbox, error)
	Sandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error)
	// ListSandboxes returns one page. A template that does not exist selects
	// nothing and is no error.
	ListSandboxes(ctx context.Context, team cove.TeamID, f cove.SandboxFilter) (cove.SandboxPage, error)
	KillSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) error
	// SetTimeout makes the sandbox end d from now, which may be sooner than
	// before. 0 ends it.
	SetTimeout(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) error
	// PauseSandbox returns once the sandbox is saved. Conflict: it is paused.
	PauseSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, how cove.Pause) error
	// ConnectSandbox makes the sandbox live at least as long as asked for; one
	// that is paused is resumed.
	ConnectSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, how cove.Resume) (sb cove.Sandbox, resumed bool, err error)
	// ResumeSandbox resumes a paused sandbox. Conflict: it runs.
	ResumeSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, how cove.Resume) (cove.Sandbox, error)
	// ForkSandbox makes count copies of a running sandbox. Conflict: it is
	// paused.
	ForkSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, count int, d time.Duration) ([]cove.ForkResult, error)
	// ExtendSandbox makes the sandbox live at least d from now. It never
	// shortens its life.
	ExtendSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) (cove.Sandbox, error)

	// KeepSnapshot keeps a snapshot of a running sandbox. Conflict: it is
	// paused, or the name is taken.
	KeepSnapshot(ctx context.Context, team cove.TeamID, id cove.SandboxID, req cove.NewSnapshot) (cove.NamedSnapshot, error)
	// ListSnapshots returns one page. A name that does not exist selects nothing.
	ListSnapshots(ctx context.Context, team cove.TeamID, name string, f cove.SnapshotFilter) (cove.SnapshotPage, error)
	Team(ctx context.Context, id cove.TeamID) (cove.Team, error)

	// ListTemplates returns at most limit of the team's templates that are made
	// by builds, newest first.
	ListTemplates(ctx context.Context, team cove.TeamID, after cove.TemplatePos, limit int) ([]cove.TemplateInfo, error)
	// TemplateBuilds returns a template with at most limit of its builds, newest
	// first.
	TemplateBuilds(ctx context.Context, team cove.TeamID, template string, after cove.BuildPos, limit int) (cove.TemplateInfo, []cove.Build, error)
	// TemplateByAlias returns the template of a name. Forbidden: there is one,
	// but the team may not use it.
	TemplateByAlias(ctx context.Context, team cove.TeamID, alias string) (cove.Template, error)
	// PublishTemplate says whether other teams may use a template.
	PublishTemplate(ctx context.Context, team cove.TeamID, template string, public bool) (cove.Template, error)
	// DeleteTemplate deletes a template; of a snapshot, what the name's tag says.
	DeleteTemplate(ctx context.Context, team cove.TeamID, name string) error

	// RequestBuild makes a build that waits for its order, and its template if
	// the team has none of that name.
	RequestBuild(ctx context.Context, team cove.TeamID, req cove.NewBuild) (cove.Template, cove.Build, error)
	// BeginBuild begins a build, which goes on after the call. Invalid: it does
	// not wait.
	BeginBuild(ctx context.Context, team cove.TeamID, template string, build cove.BuildID, order cove.BuildOrder) error
	// BuildStatus returns a build and lines of its log.
	BuildStatus(ctx context.Context, team cove.TeamID, template string, build cove.BuildID, f cove.BuildLineFilter) (cove.Build, []cove.BuildLine, error)
	// FilesUpload says whether the files of a hash are there already. With the
	// token they may be sent, again too; if it is empty, they may not.
	FilesUpload(ctx context.Context, team cove.TeamID, template, hash string) (present bool, token string, err error)
	// StoreFiles keeps what a client sends. Forbidden: the token is not ours or
	// too old.
	StoreFiles(ctx context.Context, token string, body io.Reader) error

	// AssignTags gives tags to a build and returns it. Besides the name of a
	// template, with a tag or without, target may be one with the identifier of
	// a build in the place of the tag.
	AssignTags(ctx context.Context, team cove.TeamID, target string, tags []string) (cove.BuildID, error)
	// RemoveTags takes tags from a template; none of them if one is missing.
	RemoveTags(ctx context.Context, team cove.TeamID, name string, tags []string) error
	// TemplateTags returns a template's tags, newest first.
	TemplateTags(ctx context.Context, team cove.TeamID, template string) ([]cove.TemplateTag, error)

	// SandboxMetrics returns what the sandbox used from one moment to another,
	// oldest first.
	SandboxMetrics(ctx context.Context, team cove.TeamID, id cove.SandboxID, from, to time.Time) ([]cove.Metric, error)
	// LatestMetrics leaves out what the team does not have.
	LatestMetrics(ctx context.Context, team cove.TeamID, ids []cove.SandboxID) (map[cove.SandboxID]cove.Metric, error)
	// SandboxLogs returns lines of the sandbox's log, which outlives it.
	SandboxLogs(ctx context.Context, team cove.TeamID, id cove.SandboxID, f cove.LogFilter) ([]cove.LogLine, error)
}

// Authenticator tells whose request it is. The error is Unauthorized if it is
// nobody's.
type Authenticator interface {
	Authenticate(ctx context.Context, h http.Header) (cove.Key, error)
}

// Tokens derives the access token of a secured sandbox.
type Tokens interface {
	Envd(id cove.SandboxID) string
}

// Config is what the surface is made of.
type Config struct {
	Control     Control       // required
	Auth        Authenticator // required
	Tokens      Tokens        // required
	Log         *slog.Logger  // required
	EnvdVersion string        // required; said of a sandbox whose record does not tell
}

// server implements the generated interface; its handlers are spread over the
// files of the package, one file per group of routes.
type server struct {
	control     Control
	auth        Authenticator
	tokens      Tokens
	log         *slog.Logger
	envdVersion string
	routes      *routes
}

var _ wire.ServerInterface = (*server)(nil)

// New returns the handler of the REST interface.
func New(cfg Config) http.Handler {
	s := &server{
		control:     cfg.Control,
		auth:        cfg.Auth,
		tokens:      cfg.Tokens,
		log:         cfg.Log,
		envdVersion: cfg.EnvdVersion,
		routes:      newRoutes(),
	}
	wire.HandlerWithOptions(s, wire.StdHTTPServerOptions{BaseRouter: s.routes, ErrorHandlerFunc: s.badParameter})
	return s
}

// GetHealth answers GET /health. It needs no key.
func (s *server) GetHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "Health check successful")
}
