package api

import (
	"fmt"
	"net/http"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// maxForks is how many copies one request may ask for; the protocol's limit.
const maxForks = 100

// ForkSandbox answers POST /sandboxes/{sandboxID}/fork.
func (s *server) ForkSandbox(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.ForkSandbox
		if err := decode(w, r, &body); err != nil {
			return err
		}
		count, timeout := 1, defaultTimeout
		if body.Count != nil {
			count = int(*body.Count)
		}
		if body.Timeout != nil {
			timeout = seconds(*body.Timeout)
		}
		if count < 1 || count > maxForks {
			return cove.E(cove.Invalid, "api.ForkSandbox", nil, `"count" must be from 1 to %d`, maxForks)
		}
		if err := checkLife(timeout); err != nil {
			return err
		}
		results, err := s.control.ForkSandbox(r.Context(), team, id, count, timeout)
		if err != nil {
			return fmt.Errorf("fork sandbox: %w", err)
		}
		answer := make([]wire.ForkResult, 0, len(results))
		for _, result := range results {
			answer = append(answer, s.toForkResult(r, result))
		}
		return writeJSON(w, http.StatusCreated, answer)
	})
}

// toForkResult says how one copy went; why it failed in full goes to the log.
func (s *server) toForkResult(r *http.Request, result cove.ForkResult) wire.ForkResult {
	if result.Err == nil {
		return wire.ForkResult{Sandbox: new(s.toSandbox(result.Sandbox))}
	}
	kind, msg := cove.Describe(result.Err)
	s.log.WarnContext(r.Context(), "a copy of a sandbox could not be started", "err", result.Err)
	return wire.ForkResult{Error: &wire.Error{Code: int32(statusOf(kind)), Message: msg}}
}
