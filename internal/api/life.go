package api

import (
	"fmt"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Limits of POST /sandboxes/{sandboxID}/refreshes.
const (
	defaultRefresh = 15 * time.Second
	maxRefresh     = time.Hour
)

// SetSandboxTimeout answers POST /sandboxes/{sandboxID}/timeout.
func (s *server) SetSandboxTimeout(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.SandboxTimeout
		if err := decode(w, r, &body, "timeout"); err != nil {
			return err
		}
		if body.Timeout < 0 {
			return cove.E(cove.Invalid, "api.SetSandboxTimeout", nil, `"timeout" must be at least 0`)
		}
		if err := s.control.SetTimeout(r.Context(), team, id, seconds(body.Timeout)); err != nil {
			return fmt.Errorf("set timeout: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// RefreshSandbox answers POST /sandboxes/{sandboxID}/refreshes.
func (s *server) RefreshSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.SandboxRefresh
		if err := decode(w, r, &body); err != nil {
			return err
		}
		d := defaultRefresh
		if body.Duration != nil {
			d = seconds(*body.Duration)
		}
		if d < 0 || d > maxRefresh {
			return cove.E(cove.Invalid, "api.RefreshSandbox", nil, `"duration" must be from 0 to %d`, int(maxRefresh.Seconds()))
		}
		if _, err := s.control.ExtendSandbox(r.Context(), team, id, d); err != nil {
			return fmt.Errorf("refresh sandbox: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// ConnectSandbox answers POST /sandboxes/{sandboxID}/connect.
func (s *server) ConnectSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.ConnectSandbox
		if err := decode(w, r, &body, "timeout"); err != nil {
			return err
		}
		return s.connect(w, r, team, id, seconds(body.Timeout))
	})
}

// ConnectSandboxV2 answers POST /v2/sandboxes/{sandboxID}/connect.
func (s *server) ConnectSandboxV2(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.ConnectSandboxV2
		if err := decode(w, r, &body); err != nil {
			return err
		}
		timeout := defaultTimeoutV2
		if body.Timeout != nil {
			timeout = seconds(*body.Timeout)
		}
		return s.connect(w, r, team, id, timeout)
	})
}

// connect extends a running sandbox's life and says how to reach it. How a
// paused one is to come back, the request's "memory", does not matter to one
// that runs.
func (s *server) connect(w http.ResponseWriter, r *http.Request, team cove.TeamID, id cove.SandboxID, timeout time.Duration) error {
	if err := checkLife(timeout); err != nil {
		return err
	}
	sb, err := s.control.ExtendSandbox(r.Context(), team, id, timeout)
	if err != nil {
		return fmt.Errorf("connect to sandbox: %w", err)
	}
	return writeJSON(w, http.StatusOK, s.toSandbox(sb))
}
