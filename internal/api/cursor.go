package api

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A page token is the URL-safe base64 of a moment and of what else tells items
// apart, with "__" between them. Of sandboxes it is the identifier, with "asc"
// after it in a list that begins with the oldest.
const (
	tokenSeparator = "__"
	tokenAscending = "asc"
	maxToken       = 512
)

func formatToken(at time.Time, rest ...string) string {
	parts := slices.Concat([]string{at.UTC().Format(time.RFC3339Nano)}, rest)
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, tokenSeparator)))
}

// parseToken reads a token that has a moment and n more parts.
func parseToken(token string, n int) (time.Time, []string, error) {
	if len(token) > maxToken {
		return time.Time{}, nil, badToken(nil)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil {
		return time.Time{}, nil, badToken(err)
	}
	parts := strings.SplitN(string(raw), tokenSeparator, n+1)
	if len(parts) != n+1 {
		return time.Time{}, nil, badToken(nil)
	}
	at, err := time.Parse(time.RFC3339Nano, parts[0])
	if err != nil {
		return time.Time{}, nil, badToken(err)
	}
	return at.UTC(), parts[1:], nil
}

func badToken(cause error) error {
	return cove.E(cove.Invalid, "api.parseToken", cause, "Invalid next token")
}

// formatCursor returns the token of the page after c.
func formatCursor(c cove.Cursor, order cove.Order) string {
	rest := []string{string(c.ID)}
	if order == cove.Ascending {
		rest = append(rest, tokenAscending)
	}
	return formatToken(c.StartedAt, rest...)
}

// parseCursor reads a token for a list in the given order. One that was made for
// the other order would skip what lies between.
func parseCursor(token string, order cove.Order) (cove.Cursor, error) {
	n := 1
	if order == cove.Ascending {
		n = 2
	}
	at, parts, err := parseToken(token, n)
	if err != nil {
		return cove.Cursor{}, err
	}
	id := cove.SandboxID(parts[0])
	if !id.Valid() || n == 2 && parts[1] != tokenAscending {
		return cove.Cursor{}, badToken(nil)
	}
	return cove.Cursor{StartedAt: at, ID: id}, nil
}
