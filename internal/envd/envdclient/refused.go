package envdclient

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"

	cove "github.com/cove-sandbox/cove"
)

// A RefusedError is what the daemon says of a call that it understood and does
// not carry out. It is the sandbox's word: made fit to be shown to its owner,
// and no more than a claim.
type RefusedError struct {
	Code    string // of the Connect protocol: "unauthenticated", "invalid_argument"
	Message string // without characters that do anything, and not too long
}

// Error returns both as the protocol's other clients do.
func (e *RefusedError) Error() string { return e.Code + ": " + e.Message }

func refusal(code connect.Code, message string) error {
	return &RefusedError{Code: code.String(), Message: plain(message)}
}

// callError is what comes of an error of a Connect call: a *RefusedError if the
// daemon sent it, and otherwise a *cove.Error of kind Unavailable, or
// Unauthorized if a token was refused.
func callError(op string, err error) error {
	failed, _ := errors.AsType[*connect.Error](err)
	switch {
	case failed != nil && connect.IsWireError(err):
		return refusal(failed.Code(), failed.Message())
	case failed != nil && failed.Code() == connect.CodeUnauthenticated:
		return cove.E(cove.Unauthorized, op, nil, "the sandbox refused the token")
	}
	return cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
}

// ended is what comes of a call whose context is done.
func ended(op string, cause error) error { return fmt.Errorf("%s: %w", op, cause) }
