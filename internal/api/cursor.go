package api

import (
	"encoding/base64"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// A page token is the URL-safe base64 of "<start time>__<sandbox>", with "__asc"
// after it in a list that begins with the oldest.
const (
	tokenSeparator = "__"
	tokenAscending = tokenSeparator + "asc"
	maxToken       = 256
)

// formatCursor returns the token of the page after c.
func formatCursor(c cove.Cursor, order cove.Order) string {
	token := c.StartedAt.UTC().Format(time.RFC3339Nano) + tokenSeparator + string(c.ID)
	if order == cove.Ascending {
		token += tokenAscending
	}
	return base64.RawURLEncoding.EncodeToString([]byte(token))
}

// parseCursor reads a token for a list in the given order. One that was made for
// the other order would skip what lies between.
func parseCursor(token string, order cove.Order) (cove.Cursor, error) {
	bad := func(cause error) (cove.Cursor, error) {
		return cove.Cursor{}, cove.E(cove.Invalid, "api.parseCursor", cause, "Invalid next token")
	}
	if len(token) > maxToken {
		return bad(nil)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil {
		return bad(err)
	}
	text, ascending := strings.CutSuffix(string(raw), tokenAscending)
	started, id, ok := strings.Cut(text, tokenSeparator)
	if !ok || ascending != (order == cove.Ascending) || !cove.SandboxID(id).Valid() {
		return bad(nil)
	}
	at, err := time.Parse(time.RFC3339Nano, started)
	if err != nil {
		return bad(err)
	}
	return cove.Cursor{StartedAt: at.UTC(), ID: cove.SandboxID(id)}, nil
}
