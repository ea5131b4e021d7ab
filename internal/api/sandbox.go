package api

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// GetSandbox answers GET /sandboxes/{sandboxID}.
func (s *server) GetSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		sb, err := s.control.Sandbox(r.Context(), team, id)
		if err != nil {
			return fmt.Errorf("get sandbox: %w", err)
		}
		if sb.State == cove.Killing {
			return noSandbox(string(id), nil)
		}
		return writeJSON(w, http.StatusOK, s.toDetail(sb))
	})
}

// KillSandbox answers DELETE /sandboxes/{sandboxID}.
func (s *server) KillSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		if err := s.control.KillSandbox(r.Context(), team, id); err != nil {
			return fmt.Errorf("kill sandbox: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// forSandbox answers r, which is about one sandbox, with h. What is not found,
// whether it cannot exist, does not, or is another team's, is not found in the
// same words.
func (s *server) forSandbox(w http.ResponseWriter, r *http.Request, raw string, h func(cove.TeamID, cove.SandboxID) error) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		id, err := parseSandboxID(raw)
		if err == nil {
			err = h(team, id)
		}
		if cove.Is(err, cove.NotFound) {
			return noSandbox(string(id), err)
		}
		return err
	})
}

// parseSandboxID reads the identifier in a path: alone, or followed by a hyphen
// and the client identifier, as the earliest clients joined them. If it cannot
// be one, the error is NotFound and the identifier is as it was sent.
func parseSandboxID(raw string) (cove.SandboxID, error) {
	short, client, joined := strings.Cut(raw, "-")
	id := cove.SandboxID(short)
	if !id.Valid() || joined && !clientPattern.MatchString(client) {
		return cove.SandboxID(raw), noSandbox(raw, nil)
	}
	return id, nil
}

var clientPattern = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

func noSandbox(id string, cause error) error {
	return cove.E(cove.NotFound, "api.sandbox", cause, "Sandbox %q doesn't exist or you don't have access to it", clip(id))
}
