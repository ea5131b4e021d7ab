package api

import (
	"fmt"
	"net/http"
	"regexp"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// The timeouts of a sandbox that was asked for without one. Clients of the
// second generation leave it to the server; those of the first send their own.
const (
	defaultTimeout   = 15 * time.Second
	defaultTimeoutV2 = 300 * time.Second
)

// CreateSandbox answers POST /sandboxes.
func (s *server) CreateSandbox(w http.ResponseWriter, r *http.Request, _ wire.CreateSandboxParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.NewSandbox
		if err := decode(w, r, &body, "templateID"); err != nil {
			return err
		}
		return s.create(w, r, team, body, defaultTimeout)
	})
}

// CreateSandboxV2 answers POST /v2/sandboxes, where every sandbox is secured.
func (s *server) CreateSandboxV2(w http.ResponseWriter, r *http.Request, _ wire.CreateSandboxV2Params) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.NewSandboxV2
		if err := decode(w, r, &body, "templateID"); err != nil {
			return err
		}
		return s.create(w, r, team, wire.NewSandbox{
			TemplateID:          body.TemplateID,
			Timeout:             body.Timeout,
			Secure:              new(true),
			Metadata:            body.Metadata,
			EnvVars:             body.EnvVars,
			AllowInternetAccess: body.AllowInternetAccess,
			AutoPause:           body.AutoPause,
			AutoPauseMemory:     body.AutoPauseMemory,
			AutoResume:          body.AutoResume,
			OnIdle:              body.OnIdle,
			Network:             body.Network,
			Mcp:                 body.Mcp,
			Iam:                 body.Iam,
			VolumeMounts:        body.VolumeMounts,
		}, defaultTimeoutV2)
	})
}

func (s *server) create(w http.ResponseWriter, r *http.Request, team cove.TeamID, body wire.NewSandbox, timeout time.Duration) error {
	req, err := newSandbox(body, timeout)
	if err != nil {
		return err
	}
	if req.Key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	sb, err := s.control.CreateSandbox(r.Context(), team, req)
	if err != nil {
		return fmt.Errorf("create sandbox: %w", err)
	}
	return writeJSON(w, http.StatusCreated, s.toSandbox(sb))
}

const idempotencyHeader = "Idempotency-Key"

var keyPattern = regexp.MustCompile(`^[a-z0-9-]{1,255}$`)

// idempotencyKey returns the key that makes a request safe to repeat; empty if
// it has none.
func idempotencyKey(h http.Header) (string, error) {
	keys := h.Values(idempotencyHeader)
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || !keyPattern.MatchString(keys[0]):
		return "", invalid("%s must be one key of 1 to 255 lower-case letters, digits and hyphens", idempotencyHeader)
	}
	return keys[0], nil
}

// newSandbox checks a request and says it in words of the domain. What can never
// work is told before what does not work yet.
func newSandbox(body wire.NewSandbox, timeout time.Duration) (cove.NewSandbox, error) {
	if _, err := cove.ParseTemplateRef(body.TemplateID); err != nil {
		return cove.NewSandbox{}, err
	}
	if body.Timeout != nil {
		timeout = seconds(*body.Timeout)
	}
	if err := checkLife(timeout); err != nil {
		return cove.NewSandbox{}, err
	}
	for _, check := range []func(wire.NewSandbox) error{
		checkMetadata, checkEnv, checkPause, checkIdle, checkTraffic, checkIAM, checkMounts, checkServed,
	} {
		if err := check(body); err != nil {
			return cove.NewSandbox{}, err
		}
	}
	var onTimeout cove.OnTimeout // empty: killed
	if isTrue(body.AutoPause) {
		onTimeout = cove.PauseOnTimeout
	}
	var idleAfter time.Duration // 0: it may be idle for ever
	if body.OnIdle != nil {
		idleAfter = seconds(body.OnIdle.PauseAfter)
	}
	return cove.NewSandbox{
		IdleAfter:  idleAfter,
		OnTimeout:  onTimeout,
		FilesOnly:  isFalse(body.AutoPauseMemory),
		AutoResume: body.AutoResume != nil && body.AutoResume.Enabled,
		Template:   body.TemplateID,
		Timeout:    timeout,
		Metadata:   stringsOf(body.Metadata),
		Env:        stringsOf(body.EnvVars),
		Secure:     isTrue(body.Secure),
		Internet:   body.AllowInternetAccess,
	}, nil
}

// stringsOf returns the map m points to; an empty one if there is none.
func stringsOf(m *wire.Strings) map[string]string {
	if m == nil || *m == nil {
		return map[string]string{}
	}
	return *m
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

// checkLife refuses a life that ends before it starts. The words are the
// reference's.
func checkLife(d time.Duration) error {
	if d <= 0 {
		return cove.E(cove.Invalid, "api.checkLife", nil, "Timeout must be greater than 0")
	}
	return nil
}
