package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
)

// keyLife is how long a request is known by its key, at least.
const keyLife = 24 * time.Hour

// createOnce makes the sandbox of a request that may be repeated: whoever sends
// the same with the same key gets the same sandbox, also while it is being
// made, and after a restart. A request that failed may be tried again.
// Conflict: the key was used for another request, or its sandbox has ended.
func (c *Control) createOnce(ctx context.Context, team cove.TeamID, req cove.NewSandbox) (cove.Sandbox, error) {
	const op = "control.createOnce"
	digest, err := digestOf(req)
	if err != nil {
		return cove.Sandbox{}, err
	}
	request := cove.KeyedRequest{Team: team, Key: req.Key, Digest: digest, Sandbox: id.Sandbox(), ClaimedAt: c.cfg.Now()}
	for {
		earlier, claimed, err := c.cfg.Store.ClaimRequest(ctx, request)
		if err != nil {
			return cove.Sandbox{}, err
		}
		if claimed {
			earlier = request
		}
		if earlier.Digest != digest {
			return cove.Sandbox{}, cove.E(cove.Conflict, op, nil, "the Idempotency-Key was used for another request before: use a new one")
		}
		// Everybody with the key waits for the same creation.
		sb, again, err := c.operate(ctx, earlier.Sandbox, creating, func(ctx context.Context) (cove.Sandbox, error) {
			if !claimed {
				return c.made(ctx, team, earlier.Sandbox)
			}
			sb, err := c.create(ctx, team, req, request.Sandbox)
			if err != nil {
				return sb, errors.Join(err, c.cfg.Store.ForgetRequest(ctx, request.Sandbox))
			}
			return sb, c.cfg.Store.FinishRequest(ctx, request.Sandbox)
		})
		if !again {
			return sb, err
		}
	}
}

// made returns the sandbox that an earlier request made.
func (c *Control) made(ctx context.Context, team cove.TeamID, sandbox cove.SandboxID) (cove.Sandbox, error) {
	const op = "control.made"
	sb, err := c.shown(ctx, op, team, sandbox)
	if cove.Is(err, cove.NotFound) {
		err = cove.E(cove.Conflict, op, err, "the sandbox that was made with this Idempotency-Key has ended: use a new one")
	}
	return sb, err
}

// digestOf tells requests apart.
func digestOf(req cove.NewSandbox) (string, error) {
	req.Key = ""
	content, err := json.Marshal(req) // keys of maps are sorted
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}
