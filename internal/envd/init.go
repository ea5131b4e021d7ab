package envd

import (
	"encoding/json"
	"maps"
	"net/http"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/reply"
	"github.com/cove-sandbox/cove/internal/envd/settings"
)

// maxInit bounds the body of an init.
const maxInit = 4 << 20

// A clock that is off by this much is set. It is set forward early, since a
// restored sandbox wakes in its past, and backward late, since programs suffer.
const (
	clockBehind = 50 * time.Millisecond
	clockAhead  = 5 * time.Second
)

// health says that the daemon serves.
func (d *Daemon) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// envs returns the global variables.
func (d *Daemon) envs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	reply.JSON(w, http.StatusOK, d.settings.Get().Env)
}

// apply takes over what the host says the sandbox is now. A body that was
// decided before the last one is dropped: it was overtaken.
func (d *Daemon) apply(w http.ResponseWriter, r *http.Request) {
	var body struct {
		AccessToken    string            `json:"accessToken"`
		EnvVars        map[string]string `json:"envVars"`
		Timestamp      time.Time         `json:"timestamp"`
		DefaultUser    string            `json:"defaultUser"`
		DefaultWorkdir string            `json:"defaultWorkdir"`
		SandboxID      string            `json:"sandboxID"`
		TemplateID     string            `json:"templateID"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxInit)).Decode(&body); err != nil {
		reply.Errorf(http.StatusBadRequest, "the body is not the JSON of an init").Write(w)
		return
	}
	change := settings.Change{
		Env:       body.EnvVars,
		Protected: identity(body.SandboxID, body.TemplateID),
		Token:     body.AccessToken,
		User:      body.DefaultUser,
		Workdir:   body.DefaultWorkdir,
		At:        body.Timestamp,
	}
	if d.settings.Apply(change) {
		d.setClock(body.Timestamp)
		d.mark(change.Protected)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Envd-Version", paths.Version)
	w.WriteHeader(http.StatusNoContent)
}

// The variables that say which sandbox this is.
const (
	envSandbox    = "E2B_SANDBOX"
	envSandboxID  = "E2B_SANDBOX_ID"
	envTemplateID = "E2B_TEMPLATE_ID"
)

// identity returns the protected variables of a sandbox, without those unknown.
func identity(sandbox, template string) map[string]string {
	out := map[string]string{}
	if sandbox != "" {
		out[envSandboxID] = sandbox
	}
	if template != "" {
		out[envTemplateID] = template
	}
	return out
}

// setClock sets the clock if it is off. Not every engine lets us, and the one
// that does not keeps the host's time anyway.
func (d *Daemon) setClock(now time.Time) {
	if d.cfg.SetClock == nil || now.IsZero() {
		return
	}
	if off := time.Since(now); off > clockAhead || off < -clockBehind {
		if err := d.cfg.SetClock(now); err != nil {
			d.cfg.Log.Debug("clock not set", "err", err)
		}
	}
}

// mark keeps the marker files true after the identity changed.
func (d *Daemon) mark(changed map[string]string) {
	if len(changed) == 0 || d.cfg.Markers == nil {
		return
	}
	if err := d.cfg.Markers(maps.Clone(d.settings.Get().Env)); err != nil {
		d.journal.Logger("envd", d.cfg.Log).Warn("the files that say which sandbox this is could not be written", "err", err)
	}
}
