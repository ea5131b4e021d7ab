package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// statusOf is the one place where a Kind becomes a status.
func statusOf(kind cove.Kind) int {
	switch kind {
	case cove.Invalid:
		return http.StatusBadRequest
	case cove.Unauthorized:
		return http.StatusUnauthorized
	case cove.Forbidden:
		return http.StatusForbidden
	case cove.NotFound:
		return http.StatusNotFound
	case cove.Conflict:
		return http.StatusConflict
	case cove.Exhausted:
		return http.StatusTooManyRequests
	case cove.Unavailable:
		return http.StatusServiceUnavailable
	case cove.Unimplemented:
		return http.StatusNotImplemented
	case cove.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case cove.NoSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// levelOf says how loudly an error is logged: what the caller did wrong is not
// the operator's business.
func levelOf(kind cove.Kind) slog.Level {
	switch kind {
	case cove.Internal:
		return slog.LevelError
	case cove.Unavailable, cove.DeadlineExceeded, cove.NoSpace:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// fail answers r with err, and logs the part of it that the caller does not get.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	kind, msg := cove.Describe(err)
	level := levelOf(kind)
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		// The client has gone, and nothing is wrong; or the server is stopping,
		// and an answer left out would be taken for a success.
		kind, msg, level = cove.Unavailable, "the request was cancelled; try again", slog.LevelDebug
	case kind == cove.Internal && errors.Is(err, context.DeadlineExceeded):
		kind, msg, level = cove.DeadlineExceeded, "the request took too long; try again", slog.LevelWarn
	}
	status := statusOf(kind)
	s.log.Log(ctx, level, "request failed", "request_id", requestID(w),
		"method", r.Method, "route", r.Pattern, "status", status, "err", err)
	if kind == cove.DeadlineExceeded {
		// Newer Python clients repeat what failed with a 504, unless told not
		// to; but what took too long may have happened.
		w.Header().Set("Should-Retry", "false")
	}
	writeCoded(w, status, msg, cove.CodeOf(err))
}

// writeError writes an error body. Clients decide by its code, not by the
// status, so the two are always the same.
func writeError(w http.ResponseWriter, status int, msg string) { writeCoded(w, status, msg, "") }

// writeCoded writes an error body with a name for programs, if it has one.
func writeCoded(w http.ResponseWriter, status int, msg, code string) {
	body := wire.Error{Code: int32(status), Message: msg, ErrorCode: optional(code)}
	out, _ := json.Marshal(body) // a number and a string
	writeBody(w, status, out)
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, status, body)
	return nil
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // answers hold tokens
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body) // a client that has gone is no error
}
