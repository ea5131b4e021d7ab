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
		return s.connect(w, r, team, id, seconds(body.Timeout), body.Memory)
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
		return s.connect(w, r, team, id, timeout, body.Memory)
	})
}

// connect extends a running sandbox's life, or resumes a paused one, and says
// how to reach it.
func (s *server) connect(w http.ResponseWriter, r *http.Request, team cove.TeamID, id cove.SandboxID, timeout time.Duration, memory *bool) error {
	if err := checkLife(timeout); err != nil {
		return err
	}
	sb, resumed, err := s.control.ConnectSandbox(r.Context(), team, id, cove.Resume{Timeout: timeout, FilesOnly: isFalse(memory)})
	if err != nil {
		return fmt.Errorf("connect to sandbox: %w", err)
	}
	status := http.StatusOK
	if resumed {
		status = http.StatusCreated
	}
	return writeJSON(w, status, s.toSandbox(sb))
}

// PauseSandbox answers POST /sandboxes/{sandboxID}/pause.
func (s *server) PauseSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.PauseSandbox
		if err := decode(w, r, &body); err != nil {
			return err
		}
		if err := s.control.PauseSandbox(r.Context(), team, id, cove.Pause{FilesOnly: isFalse(body.Memory), Strict: isTrue(body.RequireHealthyGuest)}); err != nil {
			return fmt.Errorf("pause sandbox: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// ResumeSandbox answers POST /sandboxes/{sandboxID}/resume.
func (s *server) ResumeSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.ResumeSandbox
		if err := decode(w, r, &body); err != nil {
			return err
		}
		var onTimeout cove.OnTimeout // empty: as it was
		if body.AutoPause != nil {
			onTimeout = cove.KillOnTimeout
			if *body.AutoPause {
				onTimeout = cove.PauseOnTimeout
			}
		}
		timeout := defaultTimeout
		if body.Timeout != nil {
			timeout = seconds(*body.Timeout)
		}
		if err := checkLife(timeout); err != nil {
			return err
		}
		sb, err := s.control.ResumeSandbox(r.Context(), team, id, cove.Resume{Timeout: timeout, OnTimeout: onTimeout})
		if err != nil {
			return fmt.Errorf("resume sandbox: %w", err)
		}
		return writeJSON(w, http.StatusCreated, s.toSandbox(sb))
	})
}
